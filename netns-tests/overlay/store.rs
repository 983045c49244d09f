//! A real etcd, on the test's own host: one member or three, behind TLS or not.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    command::{self, Output, until},
    lab::Lab,
};

/// Where its members are for all hosts.
const HOST: &str = "198.51.100.254";
/// Where its files are.
const FOLDER: &str = "/run/lab/etcd";

/// The store.
pub struct Store {
    members: Vec<Option<Child>>,
    tls: bool,
    /// What the agents get of it beside its place.
    pub credentials: Vec<(&'static str, String)>,
}

impl Store {
    /// With one member.
    pub fn start(lab: &Lab) -> Self {
        Self::new(lab, 1, false)
    }

    /// With three of them.
    pub fn three(lab: &Lab) -> Self {
        Self::new(lab, 3, false)
    }

    /// With one that proves who it is, and wants a proof.
    pub fn behind_tls(lab: &Lab) -> Self {
        Self::new(lab, 1, true)
    }

    fn new(lab: &Lab, count: usize, tls: bool) -> Self {
        lab.needs("etcd");
        lab.needs("etcdctl");
        fs::create_dir(FOLDER).expect("a directory");
        let mut store = Self { members: (0..count).map(|_| None).collect(), tls, credentials: Vec::new() };
        if tls {
            let authority = Authority::new("ca");
            authority.sign("server", HOST);
            authority.sign("host", "rnet");
            store.credentials = proofs("ca", "host");
        }
        store.up(lab);
        store
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let members: Vec<String> =
            (0..self.members.len()).map(|number| format!("{HOST}:{}", port(number, 0))).collect();
        format!("{}://{}/test", if self.tls { "etcds" } else { "etcd" }, members.join(","))
    }

    /// What an agent is told.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        [vec![("RNET_STORE", self.url())], self.credentials.clone()].concat()
    }

    /// Starts what does not run, and waits until all of it answers.
    pub fn up(&mut self, lab: &Lab) {
        for number in 0..self.members.len() {
            if self.members[number].is_none() {
                self.members[number] = Some(self.member(lab, number));
            }
        }
        for (number, member) in self.members.iter_mut().enumerate() {
            until("the store answers", || {
                let said = || fs::read_to_string(log(number)).unwrap_or_default();
                let ended = member.as_mut().and_then(|child| child.try_wait().expect("etcd"));
                assert!(ended.is_none(), "etcd ended, {ended:?}: {}", said());
                health(port(number, 2)).is_some_and(|text| text.contains("true"))
            });
        }
    }

    fn member(&self, lab: &Lab, number: usize) -> Child {
        let scheme = if self.tls { "https" } else { "http" };
        let client = |host: &str| format!("{scheme}://{host}:{}", port(number, 0));
        let peer = |number: usize| format!("http://127.0.0.1:{}", port(number, 1));
        let all: Vec<String> = (0..self.members.len()).map(|n| format!("m{n}={}", peer(n))).collect();
        let mut command = lab.command("etcd", &["--logger", "zap", "--log-level", "error"]);
        command.args(["--name", &format!("m{number}"), "--data-dir", &format!("{FOLDER}/m{number}")]);
        command.args(["--listen-client-urls", &client("0.0.0.0"), "--advertise-client-urls", &client(HOST)]);
        command.args(["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)]);
        command.args(["--initial-cluster", &all.join(",")]);
        command.args(["--listen-metrics-urls", &format!("http://127.0.0.1:{}", port(number, 2))]);
        if self.tls {
            command.args(["--cert-file", &pem("server"), "--key-file", &key("server")]);
            command.args(["--client-cert-auth", "--trusted-ca-file", &pem("ca")]);
        }
        let log = fs::File::create(log(number)).expect("a log");
        command.stdout(Stdio::null()).stderr(log).spawn().expect("etcd starts")
    }

    /// Kills all of it, at once.
    pub fn down(&mut self) {
        (0..self.members.len()).for_each(|number| self.kill(number));
    }

    /// Kills a member.
    pub fn kill(&mut self, number: usize) {
        if let Some(mut child) = self.members[number].take() {
            child.kill().expect("etcd lives");
            child.wait().expect("etcd ends");
        }
    }

    /// A member answers nobody until it is to go on.
    pub fn signal(&self, number: usize, signal: Signal) {
        let child = self.members[number].as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it lives");
    }

    /// Which member leads the others.
    pub fn leader(&self, lab: &Lab) -> usize {
        let leads = |number: &usize| {
            let mut command = self.command(lab, &["endpoint", "status", "-w", "json"], *number);
            let status = command::run(&mut command).ok().json();
            let status: &Value = &status[0]["Status"];
            status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
        };
        (0..self.members.len()).find(leads).expect("a leader")
    }

    /// Forgets everything.
    pub fn wipe(&mut self) {
        fs::remove_dir_all(FOLDER).expect("a store");
        fs::create_dir(FOLDER).expect("a directory");
    }

    fn command(&self, lab: &Lab, words: &[&str], number: usize) -> Command {
        let scheme = if self.tls { "https" } else { "http" };
        let mut command = lab.command("etcdctl", words);
        command.env("ETCDCTL_API", "3");
        command.args(["--endpoints", &format!("{scheme}://{HOST}:{}", port(number, 0))]);
        if self.tls {
            command.args(["--cacert", &pem("ca"), "--cert", &pem("host"), "--key", &key("host")]);
        }
        command
    }

    /// etcd's own command, at the first member.
    #[track_caller]
    pub fn ctl(&self, lab: &Lab, line: &str) -> Output {
        let words: Vec<&str> = line.split_whitespace().collect();
        command::run(&mut self.command(lab, &words, 0)).ok()
    }

    /// Writes anything into it.
    #[track_caller]
    pub fn put(&self, lab: &Lab, key: &str, value: &str) {
        command::run(&mut self.command(lab, &["put", "--", key, value], 0)).ok();
    }

    /// Forgets what was before now.
    #[track_caller]
    pub fn compact(&self, lab: &Lab) {
        let now = self.ctl(lab, "get x -w json").json();
        self.ctl(lab, &format!("compact {}", now["header"]["revision"]));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.down();
        let _ = fs::remove_dir_all(FOLDER);
    }
}

/// Of a member: for its clients, for the other members, for who asks how it is.
fn port(number: usize, kind: usize) -> usize {
    2379 + 10 * number + kind
}

fn log(number: usize) -> String {
    format!("/run/lab/etcd{number}.log")
}

/// A certificate.
pub fn pem(name: &str) -> String {
    format!("{FOLDER}/{name}.pem")
}

/// The key that goes with it.
pub fn key(name: &str) -> String {
    format!("{FOLDER}/{name}.key")
}

/// What an agent is told that believes one, and is the other.
pub fn proofs(ca: &str, own: &str) -> Vec<(&'static str, String)> {
    vec![("RNET_STORE_CA", pem(ca)), ("RNET_STORE_CERT", pem(own)), ("RNET_STORE_KEY", key(own))]
}

/// Signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// With a certificate of that name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let own = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, own).expect("a certificate");
        fs::write(pem(name), issuer.pem()).expect("a file");
        Self(issuer)
    }

    /// A certificate in a file of that name, for a host or an address.
    pub fn sign(&self, name: &str, of: &str) {
        let mut params = CertificateParams::new([of.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, of);
        let own = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&own, &self.0).expect("a certificate");
        fs::write(pem(name), certificate.pem()).expect("a file");
        private(&key(name), &own.serialize_pem());
    }
}

/// Writes a file that its owner reads.
pub fn private(path: &str, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
}

fn health(port: usize) -> Option<String> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}
