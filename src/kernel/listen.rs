//! Hears what the kernel tells of links, addresses and nf_tables, whoever changes them. Changes nothing, and nobody waits
//! for it: what it does not read in time the kernel drops, and says so.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use ipnetwork::IpNetwork;

use super::{
    Refusal, address,
    link::Link,
    netlink::{Answer, Channel},
};

/// What was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A link came, or is as it now is.
    Link(HeardLink),
    /// A link went.
    LinkGone(HeardLink),
    /// A link has an address.
    Address(u32, IpNetwork),
    /// A link lost an address.
    AddressGone(u32, IpNetwork),
    /// A transaction of nf_tables.
    Firewall(Transaction),
    /// More was told than could be kept: some of it is lost.
    Lost,
}

/// A link, as it was told of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeardLink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its kind: `bridge`, `veth`.
    pub kind: String,
    /// Its interface group.
    pub group: u32,
    /// It was set up.
    pub up: bool,
    /// The index of the bridge that it is a port of; 0 for none.
    pub master: u32,
    /// Its largest packet, in bytes.
    pub mtu: u32,
    /// What its `ifalias` says.
    pub alias: String,
}

/// What one transaction did, table by table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Who: the number and the name of the process.
    pub by: Option<(u32, String)>,
    /// For each table what was done in it.
    pub tables: Vec<TableChange>,
}

/// What a transaction did in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// `inet`, `bridge`, or the number of another family.
    pub family: u8,
    /// Its name.
    pub table: String,
    /// Objects made: rules, sets, elements, the table itself.
    pub made: usize,
    /// Objects unmade.
    pub unmade: usize,
    /// The table itself went.
    pub gone: bool,
}

/// Two sockets that hear.
pub struct Listener {
    route: Channel,
    firewall: Channel,
    /// What was told of the transaction whose end is not told yet.
    open: Transaction,
}

/// Bytes that wait to be read, at most: as many as an unprivileged socket may have on most hosts.
const ROOM: usize = 208 * 1024;
/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR` of `linux/rtnetlink.h`.
const ROUTE_GROUPS: [u32; 3] = [1, 5, 9];
/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`.
const FIREWALL_GROUP: u32 = 7;
/// `NETLINK_ROUTE` and `NETLINK_NETFILTER` of `linux/netlink.h`.
const PROTOCOLS: [isize; 2] = [0, 12];

impl Listener {
    /// Begins to hear, in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open() -> Result<Self, Refusal> {
        let [mut route, mut firewall] = [Channel::open(PROTOCOLS[0])?, Channel::open(PROTOCOLS[1])?];
        for group in ROUTE_GROUPS {
            route.socket_mut().add_membership(group)?;
        }
        firewall.socket_mut().add_membership(FIREWALL_GROUP)?;
        for channel in [&route, &firewall] {
            rustix::net::sockopt::set_socket_recv_buffer_size(channel.socket(), ROOM)?;
        }
        Ok(Self { route, firewall, open: Transaction::default() })
    }

    /// The sockets, to be waited for.
    #[must_use]
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        // SAFETY: both are open as long as `self` is.
        [&self.route, &self.firewall]
            .map(|channel| unsafe { BorrowedFd::borrow_raw(channel.socket().as_raw_fd()) })
    }

    /// Reads what one datagram of the first socket tells, of which there must be one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hear_links(&mut self) -> Result<Vec<Heard>, Refusal> {
        let mut heard = Vec::new();
        or_lost(self.route.receive(|answer| {
            heard.extend(of_route(&answer));
            false
        }))
        .map(|lost| heard.into_iter().chain(lost).collect())
    }

    /// As `hear_links`, for the second socket.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hear_firewall(&mut self) -> Result<Vec<Heard>, Refusal> {
        let mut heard = Vec::new();
        let open = &mut self.open;
        or_lost(self.firewall.receive(|answer| {
            heard.extend(of_firewall(&answer, open).map(Heard::Firewall));
            false
        }))
        .map(|lost| heard.into_iter().chain(lost).collect())
    }
}

/// `ENOBUFS` says that something was dropped, and that is all.
fn or_lost(received: Result<bool, Refusal>) -> Result<Option<Heard>, Refusal> {
    match received {
        Ok(_) => Ok(None),
        Err(refusal) if refusal.errno == libc::ENOBUFS => Ok(Some(Heard::Lost)),
        Err(refusal) => Err(refusal),
    }
}

fn of_route(answer: &Answer<'_>) -> Option<Heard> {
    // A bridge tells of its ports too (`AF_BRIDGE`), in messages that say little of the link itself.
    if matches!(answer.kind, libc::RTM_NEWLINK | libc::RTM_DELLINK)
        && answer.body.first().copied().map(i32::from) != Some(libc::AF_UNSPEC)
    {
        return None;
    }
    match answer.kind {
        libc::RTM_NEWLINK => Link::read(answer).map(|link| Heard::Link(link.into())),
        libc::RTM_DELLINK => Link::read(answer).map(|link| Heard::LinkGone(link.into())),
        libc::RTM_NEWADDR => address::read(answer).map(|(link, address)| Heard::Address(link, address)),
        libc::RTM_DELADDR => address::read(answer).map(|(link, address)| Heard::AddressGone(link, address)),
        _ => None,
    }
}

impl From<Link> for HeardLink {
    fn from(link: Link) -> Self {
        let Link { index, name, kind, group, up, master, mtu, alias, .. } = link;
        Self { index, name, kind, group, up, master, mtu, alias }
    }
}

/// Notes what a message tells; the transaction, once its end is told.
fn of_firewall(answer: &Answer<'_>, open: &mut Transaction) -> Option<Transaction> {
    /// `NFT_MSG_*`: what is made has an even or odd number, in no order.
    const NEW: [u16; 7] = [0, 3, 6, 9, 12, 18, 22];
    const GONE: [u16; 7] = [2, 5, 8, 11, 14, 20, 24];
    const TABLE_GONE: u16 = 2;
    const GENERATION: u16 = 15;
    let (header, attributes) = answer.body.split_at_checked(4)?;
    let kind = answer.kind & 0xff;
    if kind == GENERATION {
        let pid = super::firewall::value(attributes, 2).and_then(|value| super::firewall::word(&value));
        let name = super::firewall::text(attributes, 3);
        let by = pid.map(|pid| (pid, name));
        return Some(Transaction { by, tables: std::mem::take(&mut open.tables) });
    }
    let (made, unmade) = (NEW.contains(&kind), GONE.contains(&kind));
    let table = super::firewall::text(attributes, 1);
    let same = |change: &&mut TableChange| change.family == header[0] && change.table == table;
    let change = match open.tables.iter_mut().find(same) {
        Some(change) => change,
        None => {
            let new = TableChange { family: header[0], table, made: 0, unmade: 0, gone: false };
            open.tables.push(new);
            open.tables.last_mut()?
        }
    };
    change.made += usize::from(made);
    change.unmade += usize::from(unmade);
    change.gone = kind == TABLE_GONE || change.gone && kind != 0;
    None
}
