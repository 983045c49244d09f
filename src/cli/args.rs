//! The words of the command. Values are texts here and parsed by the types that they become, so that every bad
//! value is refused in the same way.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand};

/// Networks for containers and network namespaces: bridges, addresses, names, published ports.
#[derive(Parser, Debug)]
#[command(name = "rnet", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads the words of the command; the first is its own name.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        super::quick::read(words).map_or_else(|| Self::try_parse_from(words), Ok)
    }
}

/// Where rnet keeps what it knows.
#[derive(ClapArgs, Debug)]
pub(crate) struct Global {
    /// Network definitions and the host's identity; survives a reboot
    #[arg(
        long,
        global = true,
        env = "RNET_ROOT",
        default_value = "/var/lib/rnet",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) root: PathBuf,
    /// Endpoints and locks; lives and dies with the kernel's objects
    #[arg(
        long,
        global = true,
        env = "RNET_RUN",
        default_value = "/run/rnet",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub(crate) run: PathBuf,
    /// What is told on stderr: off, error, warn, info, debug or trace
    #[arg(
        long,
        global = true,
        env = "RNET_LOG",
        default_value = "warn",
        value_name = "LEVEL",
        hide_env_values = true
    )]
    pub(crate) log: String,
}

#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Manage networks
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Run a command in a container of its own; without one, a page that shows its network
    Run(Run),
    /// Run a command in a container that is there
    Exec(Exec),
    /// List containers
    Ps(Ps),
    /// Stop containers
    Stop(Stop),
    /// Remove containers that have ended
    Rm(RmContainers),
    /// Print what a detached container has written
    Logs(Logs),
    /// List the published ports of a container
    Port(Port),
    /// Compare what is recorded with what the kernel has; exit code 1 if they differ
    Check(Check),
    /// Make the kernel agree with the records
    Repair(Repair),
    /// Take back what has no living owner
    Gc(Gc),
    /// Look at the host: what helps, what is in the way, what to do; exit code 1 if something will not work
    Doctor(Doctor),
    /// What a runtime of containers needs to call rnet as its CNI plugin; without a command, the plugin itself
    #[command(subcommand)]
    Cni(CniCommand),
    /// Hosts that share networks with this one
    #[command(subcommand)]
    Host(HostCommand),
    /// Serve a container's ports on the host's 127.0.0.1 and ::1, until it is disconnected: for networks with loopback=proxy
    Proxy(Proxy),
    /// Tell what happens to networks, links, addresses and the firewall of rnet, as it happens: a line of JSON each
    Events(Events),
    /// Take everything away that rnet made on this host
    Purge,
    /// Make the networks that are defined, as after a reboot
    Restore,
    /// Be there for what needs somebody: names of containers. Starts by itself where a network needs it
    Agent(Agent),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page
    Man,
}

impl Command {
    /// Whether the command changes the host and ends by itself soon.
    pub(crate) fn changes_networks(&self) -> bool {
        match self {
            Self::Network(command) => !matches!(
                command,
                NetworkCommand::Ls(_) | NetworkCommand::Inspect(_) | NetworkCommand::Prune(_)
            ),
            Self::Repair(_) | Self::Gc(_) | Self::Restore | Self::Cni(_) => true,
            _ => false,
        }
    }
}

#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum NetworkCommand {
    /// Create a network and print its id
    Create(Create),
    /// List networks
    #[command(alias = "list")]
    Ls(Ls),
    /// Show networks and their containers
    Inspect(Inspect),
    /// Connect a container to a network
    Connect(Connect),
    /// Disconnect a container from a network
    Disconnect(Disconnect),
    /// Remove networks
    #[command(alias = "remove")]
    Rm(Rm),
    /// Remove all networks that no container is connected to
    Prune(Prune),
}

#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum CniCommand {
    /// Put the plugin where runtimes look for it
    Install(CniInstall),
    /// Print the configuration that lets a runtime use a network
    Export(CniExport),
    /// Look for mistakes in a configuration; exit code 1 if there are any
    Lint(CniLint),
}

#[derive(ClapArgs, Debug)]
pub(crate) struct CniExport {
    /// The network's name or id
    pub(crate) network: String,
    /// Write it there as NETWORK.conflist, and print the path
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/etc/cni/net.d")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct CniLint {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct CniInstall {
    /// Where to
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Also by the names of other plugins: all that rnet can be, or these, with commas between
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub(crate) aliases: Option<String>,
    /// Replace what is there and is not rnet
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Create {
    /// The network's name
    pub(crate) name: String,
    /// The driver: bridge, overlay, ptp, macvlan or ipvlan
    #[arg(short, long, default_value = "bridge", value_name = "NAME")]
    pub(crate) driver: String,
    /// A subnet; once a family
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Vec<String>,
    /// The host's address in a subnet, which containers use as their gateway
    #[arg(long, value_name = "IP")]
    pub(crate) gateway: Vec<String>,
    /// Addresses are given out from here
    #[arg(long, value_name = "CIDR")]
    pub(crate) ip_range: Vec<String>,
    /// A reserved address, never given out
    #[arg(long, value_name = "NAME=IP")]
    pub(crate) aux_address: Vec<String>,
    /// Who gives out addresses: default or null
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub(crate) ipam_driver: String,
    /// An option of the IPAM driver
    #[arg(long, value_name = "K=V")]
    pub(crate) ipam_opt: Vec<String>,
    /// With IPv4 (true unless false is given)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true")]
    pub(crate) ipv4: String,
    /// With IPv6; without a subnet one is chosen
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    pub(crate) ipv6: String,
    /// No way in or out, except between members
    #[arg(long)]
    pub(crate) internal: bool,
    /// Accepted and shown
    #[arg(long)]
    pub(crate) attachable: bool,
    /// A label
    #[arg(long, value_name = "K=V")]
    pub(crate) label: Vec<String>,
    /// An option of the driver
    #[arg(short, long, value_name = "K=V")]
    pub(crate) opt: Vec<String>,
    /// Also write the configuration with which runtimes of containers use it, as NAME.conflist
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "/etc/cni/net.d")]
    pub(crate) cni: Option<PathBuf>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Ls {
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print ids in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only networks with: driver, id, name, label, scope, type, dangling
    #[arg(short, long, value_name = "K=V")]
    pub(crate) filter: Vec<String>,
    /// table, json, or a template as {{.Name}}
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Inspect {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// json, or a template as {{.Name}}
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Accepted, as Docker does
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(ClapArgs, Debug, Default)]
pub(crate) struct Connect {
    /// The network
    pub(crate) network: String,
    /// A container of rnet run, a name of ip netns, a path to a namespace file, or pid:NUMBER
    pub(crate) container: String,
    /// A static IPv4 address
    #[arg(long)]
    pub(crate) ip: Option<String>,
    /// A static IPv6 address
    #[arg(long, value_name = "IP")]
    pub(crate) ip6: Option<String>,
    /// The hardware address
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// Another name of the container on this network
    #[arg(long, value_name = "NAME")]
    pub(crate) alias: Vec<String>,
    /// The interface's name in the container (eth0, eth1, ... unless given)
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Option<String>,
    /// Publish ports: [[HOST_IP]:][HOST_PORT[-END]]:CONTAINER_PORT[-END][/tcp|udp|sctp]
    #[arg(short, long, value_name = "SPEC", allow_hyphen_values = true)]
    pub(crate) publish: Vec<String>,
    /// The service that shares the published host ports: NAME[,weight=N][,balance=random|source]
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Higher wins when the container's gateway is chosen
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true)]
    pub(crate) gw_priority: String,
    /// An option of the driver
    #[arg(long, value_name = "K=V")]
    pub(crate) driver_opt: Vec<String>,
    /// What the container is called on this network, besides its own name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Print the endpoint: json, or a template as {{.IPv4Address}}
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug, Default)]
pub(crate) struct Disconnect {
    /// The network
    pub(crate) network: String,
    /// The container, as it was connected
    pub(crate) container: String,
    /// It is no error if the container is not connected
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Rm {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
    /// Disconnect their containers first; it is no error if there is no such network
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Prune {
    /// Do not ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only networks with: until, label, label!
    #[arg(long, value_name = "K=V")]
    pub(crate) filter: Vec<String>,
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Run {
    /// Accepted: the terminal and standard input are the caller's anyway
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,
    /// Accepted: the terminal and standard input are the caller's anyway
    #[arg(short, long, hide = true)]
    pub(crate) tty: bool,
    /// The container's name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its host name (its name unless given)
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Go to the background and print the container's id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Forget the container when it ends (so it is in the foreground anyway)
    #[arg(long)]
    pub(crate) rm: bool,
    /// NETWORK, host, none, container:NAME, or name=NETWORK,ip=...,alias=...,mac-address=...,gw-priority=...
    #[arg(long, alias = "net", value_name = "NETWORK")]
    pub(crate) network: Vec<String>,
    /// Publish ports: [[HOST_IP]:][HOST_PORT[-END]]:CONTAINER_PORT[-END][/tcp|udp|sctp]
    #[arg(short, long, value_name = "SPEC", allow_hyphen_values = true)]
    pub(crate) publish: Vec<String>,
    /// The service that shares the published host ports: NAME[,weight=N][,balance=random|source]
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// A static IPv4 address on the first network
    #[arg(long)]
    pub(crate) ip: Option<String>,
    /// A static IPv6 address on the first network
    #[arg(long, value_name = "IP")]
    pub(crate) ip6: Option<String>,
    /// The hardware address on the first network
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// Another name on the first network
    #[arg(long, value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// A name server
    #[arg(long, value_name = "IP")]
    pub(crate) dns: Vec<String>,
    /// A domain to search; . for none
    #[arg(long, value_name = "NAME")]
    pub(crate) dns_search: Vec<String>,
    /// An option of the resolver
    #[arg(long, alias = "dns-opt", value_name = "O")]
    pub(crate) dns_option: Vec<String>,
    /// A line in /etc/hosts
    #[arg(long, value_name = "NAME:IP|host-gateway")]
    pub(crate) add_host: Vec<String>,
    /// A sysctl of its network: net.*
    #[arg(long, value_name = "K=V")]
    pub(crate) sysctl: Vec<String>,
    /// An environment variable
    #[arg(short, long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// The directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Who to be
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Exec {
    /// Accepted: the terminal and standard input are the caller's anyway
    #[arg(short, long, hide = true)]
    pub(crate) interactive: bool,
    /// Accepted: the terminal and standard input are the caller's anyway
    #[arg(short, long, hide = true)]
    pub(crate) tty: bool,
    /// The container
    pub(crate) container: String,
    /// An environment variable
    #[arg(short, long, value_name = "K=V")]
    pub(crate) env: Vec<String>,
    /// The directory to start in
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<PathBuf>,
    /// Who to be
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Ps {
    /// Also those that have ended
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print ids and commands in full
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// table, json, or a template as {{.Names}}
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Stop {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// How long to wait for an end before it is forced
    #[arg(short, long, value_name = "SECONDS", default_value = "10", allow_hyphen_values = true)]
    pub(crate) time: String,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct RmContainers {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
    /// End those that run; it is no error if there is no such container
    #[arg(short, long)]
    pub(crate) force: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Logs {
    /// The container
    pub(crate) container: String,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Port {
    /// The container
    pub(crate) container: String,
    /// Only this port of the container: PORT[/PROTO]
    pub(crate) port: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Check {
    /// Only these networks
    #[arg(value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Repair {
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Events {
    /// Begin with what records still tell of the time since then: networks and connections that are still there
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// End then
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only some: type, event, network, container or scope = VALUE; the same key twice means either
    #[arg(short, long, value_name = "FILTER")]
    pub(crate) filter: Vec<String>,
    /// json (a line each), or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Gc {
    /// Print what would be taken back, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Agent {
    /// Stay in the foreground until SIGTERM, and log to stderr
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Print how the agent is, as JSON; exit code 1 if there is none
    #[arg(long, conflicts_with = "foreground")]
    pub(crate) status: bool,
    /// End the agent, leaving the kernel as it is
    #[arg(long, conflicts_with_all = ["foreground", "status"])]
    pub(crate) stop: bool,
    #[command(flatten)]
    pub(crate) at: AgentStore,
    /// The address that other hosts send to; the one that the default route uses unless given
    #[arg(long, env = "RNET_HOST_ADDRESS", value_name = "IP", hide_env_values = true)]
    pub(crate) host_address: Option<String>,
    /// This host's name for others
    #[arg(long, env = "RNET_HOST_NAME", value_name = "NAME", hide_env_values = true)]
    pub(crate) host_name: Option<String>,
    /// Leave when no network needs it
    #[arg(long, hide = true)]
    pub(crate) while_wanted: bool,
    /// Be a part of an agent that is heard on standard input
    #[arg(long, hide = true, value_name = "NAME", conflicts_with_all = ["foreground", "status", "stop"])]
    pub(crate) part: Option<String>,
}

/// The store of networks that span hosts.
#[derive(ClapArgs, Debug)]
pub(crate) struct AgentStore {
    /// Where networks that span hosts are kept: etcd://HOST:PORT[,HOST:PORT...][/PREFIX]; etcds:// for TLS
    #[arg(long, env = "RNET_STORE", value_name = "URL", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// Certificates of the authorities that may have signed the store's, in PEM
    #[arg(long, env = "RNET_STORE_CA", value_name = "FILE", hide_env_values = true)]
    pub(crate) store_ca: Option<PathBuf>,
    /// This host's certificate for the store, in PEM
    #[arg(long, env = "RNET_STORE_CERT", value_name = "FILE", hide_env_values = true)]
    pub(crate) store_cert: Option<PathBuf>,
    /// The key of this host's certificate, in PEM
    #[arg(long, env = "RNET_STORE_KEY", value_name = "FILE", hide_env_values = true)]
    pub(crate) store_key: Option<PathBuf>,
    /// A file whose first line is USER:PASSWORD for the store
    #[arg(long, env = "RNET_STORE_PASSWORD_FILE", value_name = "FILE", hide_env_values = true)]
    pub(crate) store_password_file: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
#[command(defer = true)]
pub(crate) enum HostCommand {
    /// List the hosts that share networks with this one
    #[command(alias = "list")]
    Ls(HostLs),
    /// Show hosts, as JSON
    Inspect(HostNames),
    /// Remove hosts that are gone for good: what they had is given back
    #[command(alias = "remove")]
    Rm(HostNames),
}

#[derive(ClapArgs, Debug)]
pub(crate) struct HostLs {
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct HostNames {
    /// Names, ids, or beginnings of ids
    #[arg(required = true, value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(ClapArgs, Debug)]
pub(crate) struct Proxy {
    /// The container
    pub(crate) container: String,
}
