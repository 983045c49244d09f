//! Sandboxes: network namespaces that belong to a network, each with a name in rnet's run directory. Inside one, the
//! sandbox is the host: the same steps are run and the same things found by a kernel that was opened there.

use std::{
    collections::HashMap,
    fs, io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use rnetkit_drivers::{
    InterfaceName,
    resource::{Tunnel, Uplink},
};
use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::{
    Linux, Netns, Refusal, firewall,
    link::{self, Link},
    netlink::{Requests, request},
    overlay,
};

/// How long a namespace that nobody uses any more may still be there, and how often that is looked at.
const TAKING_DOWN: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The sandboxes of a host.
pub(super) struct Sandboxes {
    folder: Option<PathBuf>,
    open: HashMap<String, Sandbox>,
}

struct Sandbox {
    netns: Netns,
    kernel: Box<Linux>,
}

impl Sandboxes {
    /// Where there can be none: a sandbox has none itself.
    pub(super) fn none() -> Self {
        Self { folder: None, open: HashMap::new() }
    }

    /// With their names in that directory, which is made when the first one is.
    pub(super) fn in_folder(folder: PathBuf) -> Self {
        Self { folder: Some(folder), open: HashMap::new() }
    }

    fn path(&self, name: &InterfaceName) -> Result<PathBuf, Refusal> {
        let folder = self.folder.as_ref();
        let none = || Refusal::because(libc::ENOTSUP, "there is no place for sandboxes here");
        Ok(folder.ok_or_else(none)?.join(name.as_str()))
    }

    /// Makes one. What has its name in rnet's own directory, and is remembered by nobody, is an earlier life's.
    pub(super) fn create(&mut self, name: &InterfaceName) -> Result<(), Refusal> {
        let path = self.path(name)?;
        self.remove(name)?;
        if let Some(folder) = path.parent() {
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(folder)?;
        }
        fs::File::create_new(&path)?;
        let made = Netns::in_new(|| {
            quiet()?;
            mount_bind("/proc/thread-self/ns/net", &path).map_err(Refusal::from)
        });
        made.and_then(|made| made).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })
    }

    /// Takes the name away, and with it the sandbox. Its links must be gone: what is left in it the kernel takes
    /// away in its own time.
    pub(super) fn remove(&mut self, name: &InterfaceName) -> Result<(), Refusal> {
        let path = self.path(name)?;
        self.open.remove(name.as_str());
        match unmount(&path, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Frames on the sandbox's bridge pass no firewall but its bridge's own, and the sandbox itself says nothing.
fn quiet() -> Result<(), Refusal> {
    // IPv6 itself stays on: without it the kernel knows no IPv6 neighbours to answer for.
    const OFF: [(&str, &str); 6] = [
        ("bridge/bridge-nf-call-iptables", "0"),
        ("bridge/bridge-nf-call-ip6tables", "0"),
        ("bridge/bridge-nf-call-arptables", "0"),
        ("ipv6/conf/default/addr_gen_mode", "1"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/router_solicitations", "0"),
    ];
    for (name, value) in OFF {
        let path = format!("/proc/sys/net/{name}");
        match fs::write(&path, value) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                return Err(Refusal::because(errno, format!("{path} = {value}")));
            }
            _ => {}
        }
    }
    Ok(())
}

impl Linux {
    /// Does something in a sandbox, by a kernel that sees the sandbox as its host.
    ///
    /// A sandbox that was entered stays open, but never longer than it has its name: held open it would live on.
    pub(super) fn enter<T>(
        &mut self,
        name: &InterfaceName,
        work: impl FnOnce(&mut Linux, &Netns) -> T,
    ) -> Result<T, Refusal> {
        let path = self.sandboxes().path(name)?;
        let missing = || Refusal::because(libc::ENOENT, format!("there is no sandbox {name}"));
        let Ok(file) = fs::metadata(&path) else {
            self.sandboxes().open.remove(name.as_str());
            return Err(missing());
        };
        let known = self.sandboxes().open.remove(name.as_str());
        let same = known.filter(|known| known.netns.identity() == (file.dev(), file.ino()));
        let mut sandbox = match same {
            Some(sandbox) => sandbox,
            None => {
                let netns = Netns::open(&path).map_err(|_| missing())?;
                let kernel = Box::new(self.of_sandbox(netns.identity()));
                Sandbox { netns, kernel }
            }
        };
        let result = sandbox.netns.inside(|| work(&mut sandbox.kernel, &sandbox.netns));
        self.sandboxes().open.insert(name.as_str().to_owned(), sandbox);
        result
    }
}

/// Links that have one end in a sandbox.
impl Linux {
    /// All links in the sandbox go before it does: a tunnel that lingered would keep its number from the next one.
    pub(super) fn remove_sandbox(&mut self, name: &InterfaceName, group: u32) -> Result<(), Refusal> {
        let emptied = self.enter(name, |linux, _| {
            let links = linux.finding_host()?.dump(&link::list(), Link::read)?;
            // The bridge last announced is as good as any: its end says that the message was run.
            match links.iter().find(|link| link.group == group) {
                Some(found) => linux.delete(&link::delete_group(group), found.index),
                None => Ok(()),
            }
        });
        match emptied {
            Ok(emptied) => emptied?,
            Err(refusal) if refusal.is_missing() => {}
            Err(refusal) => return Err(refusal),
        }
        self.sandboxes().remove(name)
    }

    /// Deletes a link of the sandbox, whosever it is: everything in a sandbox is its network's.
    pub(super) fn remove_link(&mut self, name: &InterfaceName) -> Result<(), Refusal> {
        match link::find(self.finding_host()?, name)? {
            Some(found) => self.delete(&link::delete(found.index), found.index),
            None => Err(Refusal::because(libc::ENODEV, format!("there is no link {name}"))),
        }
    }

    /// The namespace is the sandbox, the socket of the tunnel stays on the host.
    pub(super) fn create_tunnel(&mut self, tunnel: &Tunnel) -> Result<(), Refusal> {
        if tunnel.sealed {
            self.refuse_unsealed(tunnel.port)?;
        }
        let sandbox =
            self.enter(&tunnel.sandbox, |linux, netns| match linux.remove_link(&tunnel.name) {
                Err(refusal) if !refusal.is_missing() => Err(refusal),
                _ => Ok(netns.as_fd().try_clone_to_owned()?),
            })??;
        // The kernel takes a namespace down some time after its last user let go of it, and a tunnel in it counts
        // until then: that of a sandbox that somebody unmounted is not there for long.
        let end = Instant::now() + TAKING_DOWN;
        loop {
            let mut requests = Requests::default();
            let message = overlay::create_tunnel(tunnel, sandbox.as_fd());
            requests.push(request(message), NLM_F_CREATE | NLM_F_EXCL);
            match self.finding_host()?.run(requests, |_| ()) {
                Err((_, refusal)) if refusal.errno == libc::EEXIST && Instant::now() < end => {
                    thread::sleep(LOOK_AGAIN);
                }
                Err((_, refusal)) => return Err(in_use(refusal, tunnel)),
                Ok(()) => return self.set_tunnel(tunnel),
            }
        }
    }

    /// A tunnel cannot become another: it is made anew, and up as it was. What was behind it has to be said again.
    pub(super) fn replace_tunnel(&mut self, tunnel: &Tunnel) -> Result<(), Refusal> {
        self.create_tunnel(tunnel)?;
        self.enter(&tunnel.sandbox, |linux, _| {
            linux.set_links(&tunnel.name, &tunnel.bridge, |index, _| vec![link::set_up(index)])
        })?
    }

    /// What must not be seen in clear has no tunnel before the rules that keep it were read back.
    fn refuse_unsealed(&mut self, port: u16) -> Result<(), Refusal> {
        let (nft, table) = self.finding_firewall()?;
        if firewall::is_sealed(nft, &table, port)? {
            return Ok(());
        }
        let text = format!("the firewall does not keep {port}/udp from being sent in clear");
        Err(Refusal::because(libc::ECANCELED, text))
    }

    /// The tunnel as a port of the bridge: in one message after the other, as the kernel wants it.
    pub(super) fn set_tunnel(&mut self, tunnel: &Tunnel) -> Result<(), Refusal> {
        let port = |index, bridge| vec![link::set_master(index, bridge), overlay::set_tunnel_port(index)];
        self.enter(&tunnel.sandbox, |linux, _| linux.set_links(&tunnel.name, &tunnel.bridge, port))?
    }

    /// That of a sandbox of before is gone by now: it went with the tunnel there, which `create_tunnel` waits for.
    pub(super) fn create_uplink(&mut self, uplink: &Uplink) -> Result<(), Refusal> {
        let sandbox = self
            .enter(&uplink.sandbox, |_, netns| netns.as_fd().try_clone_to_owned().map_err(Refusal::from))??;
        let mut requests = Requests::default();
        requests.push(request(overlay::create_uplink(uplink, sandbox.as_fd())), NLM_F_CREATE | NLM_F_EXCL);
        self.finding_host()?.run(requests, |_| ()).map_err(|(_, refusal)| refusal)?;
        self.set_uplink(uplink)
    }

    /// Address, size and mark of the host's end, and the bridge of the other.
    pub(super) fn set_uplink(&mut self, uplink: &Uplink) -> Result<(), Refusal> {
        let host = self.finding_host()?;
        let missing = || Refusal::because(libc::ENODEV, format!("there is no link {}", uplink.name));
        let index = link::find(host, &uplink.name)?.ok_or_else(missing)?.index;
        let mut requests = Requests::default();
        requests.push(request(link::set_bridge(index, uplink.mac, uplink.mtu)), 0);
        requests.push(request(link::set_alias(index, &uplink.alias)), 0);
        host.run(requests, |_| ()).map_err(|(_, refusal)| refusal)?;
        let port = |index, bridge| vec![link::set_master(index, bridge)];
        self.enter(&uplink.sandbox, |linux, _| linux.set_links(&uplink.peer, &uplink.bridge, port))?
    }

    fn set_links(
        &mut self,
        name: &InterfaceName,
        bridge: &InterfaceName,
        messages: impl FnOnce(u32, u32) -> Vec<RouteNetlinkMessage>,
    ) -> Result<(), Refusal> {
        let host = self.finding_host()?;
        let mut index = |name: &InterfaceName| {
            let missing =
                || Refusal::because(libc::ENODEV, format!("there is no link {name} in the sandbox"));
            Ok::<u32, Refusal>(link::find(host, name)?.ok_or_else(missing)?.index)
        };
        let messages = messages(index(name)?, index(bridge)?);
        let mut requests = Requests::default();
        messages.into_iter().for_each(|message| requests.push(request(message), 0));
        host.run(requests, |_| ()).map_err(|(_, refusal)| refusal)
    }
}

/// A tunnel of that number and port is there: in another network, or of another program.
fn in_use(refusal: Refusal, tunnel: &Tunnel) -> Refusal {
    if refusal.errno != libc::EEXIST {
        return refusal;
    }
    let text = format!("another VXLAN link of this host has number {} on port {}", tunnel.vni, tunnel.port);
    Refusal::because(libc::EADDRINUSE, text)
}
