//! Names that nobody here has: who is asked for them, and who is not.

use std::time::Instant;

use domain::base::{Message, iana::Rtype};

use super::{Asker, PATIENCE, exchange, question};
use crate::{
    command::{Running, until},
    harness::tests,
    lab::{Lab, use_resolver},
};

tests! {
    other_names_are_asked_of_the_hosts_resolvers,
    internal_networks_ask_nobody_else,
    resolv_conf_replaced_by_another_file_is_seen,
}

/// A name server on the LAN that counts what it is asked, and answers as the name says: `slow`, `wrong-id`, `wrong-name`,
/// `huge` (cut short over UDP), anything else with 203.0.113.7; names that begin with `no` are nobody's.
const UPSTREAM: &str = r#"
import socket, struct, sys, threading, time
count = 0
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('192.0.2.2', 53))
tcp = socket.socket(); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); tcp.bind(('192.0.2.2', 53)); tcp.listen(50)
def end(q):
    at = 12
    while q[at]: at += q[at] + 1
    return at + 5
def answer(q, whole):
    e = end(q); name = q[13:13 + q[12]].decode(); head = q[:2]; question = q[12:e]
    record = b'\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\xcb\0\x71\x07'
    if name.startswith('no'): return head + b'\x81\x83\0\x01\0\0\0\0\0\0' + question
    if name == 'wrong-id': head = bytes([q[0] ^ 1, q[1]])
    if name == 'wrong-name': question = b'\x05other' + question[1 + q[12]:]
    if name == 'huge':
        if not whole: return head + b'\x83\x80\0\x01\0\0\0\0\0\0' + question
        return head + b'\x81\x80\0\x01' + struct.pack('>H', 100) + b'\0\0\0\0' + question + record * 100
    return head + b'\x81\x80\0\x01\0\x01\0\0\0\0' + question + record
def serve_tcp():
    while True:
        c, _ = tcp.accept()
        n = struct.unpack('>H', c.recv(2))[0]; a = answer(c.recv(n), True)
        c.sendall(struct.pack('>H', len(a)) + a); c.close()
threading.Thread(target=serve_tcp, daemon=True).start()
print('ready', flush=True)
def serve_udp():
    global count
    while True:
        q, who = udp.recvfrom(4096); count += 1
        if b'slow' not in q: udp.sendto(answer(q, False), who)
threading.Thread(target=serve_udp, daemon=True).start()
for line in sys.stdin: print(count, flush=True)
"#;

/// The name server on the LAN, which is the host's resolver from now on.
struct Upstream(Running);

impl Upstream {
    fn start(lab: &Lab) -> Self {
        lab.needs("python3");
        let mut running = lab.lan.inside(|| Running::start(&mut lab.command("python3", &["-c", UPSTREAM])));
        assert_eq!(running.line(), "ready");
        use_resolver("nameserver 192.0.2.2\n").expect("a file");
        Self(running)
    }

    /// How many questions it was asked over UDP.
    fn count(&mut self) -> u32 {
        self.0.type_line("");
        self.0.line().parse().expect("a number")
    }
}

fn other_names_are_asked_of_the_hosts_resolvers(lab: &Lab) {
    let mut upstream = Upstream::start(lab);
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    let web = Asker::new(lab, &web, "blue");
    assert_eq!(web.a("www.example"), "NOERROR 203.0.113.7");
    assert_eq!(web.a("WWW.example"), "NOERROR 203.0.113.7");
    assert_eq!(upstream.count(), 1, "the second answer is kept from the first");
    assert_eq!(web.a("nobody.example"), "NXDOMAIN");
    assert_eq!(web.a("nobody.example"), "NXDOMAIN");
    assert_eq!(upstream.count(), 3, "a no that does not say how long is not kept");
    // Cut short over UDP, so asked again over TCP; and so is the asker.
    let cut =
        exchange(web.place, web.server, &question("huge.example", Rtype::A), PATIENCE).expect("an answer");
    assert!(Message::from_octets(&cut[..]).expect("a message").header().tc() && cut.len() <= 512);
    assert_eq!(web.tcp("huge.example").split(' ').count(), 101);
    // What answers another question, or with another id, is no answer.
    for name in ["wrong-id.example", "wrong-name.example"] {
        assert_eq!(web.a(name), "SERVFAIL", "{name}");
    }
    lab.rn("network rm -f blue").ok();
}

fn internal_networks_ask_nobody_else(lab: &Lab) {
    let mut upstream = Upstream::start(lab);
    lab.rn("network create --internal --subnet 10.91.0.0/24 red").ok();
    let db = lab.namespace("db");
    lab.rn("network connect red db").ok();
    let db_asks = Asker::new(lab, &db, "red");
    assert_eq!(db_asks.a("secret.example"), "NXDOMAIN");
    assert_eq!(db_asks.tcp("secret.example"), "NXDOMAIN");
    assert_eq!(db_asks.a("db"), "NOERROR 10.91.0.2");
    assert_eq!(upstream.count(), 0, "packets at the host's resolver");
    // A resolver of the host at all its addresses would ask the world: it is not reached.
    lab.rn("agent --stop").ok();
    lab.listen_udp(&lab.host, "0.0.0.0:53");
    db_asks.hears_nothing("secret.example");
    lab.silence(&lab.host);
    lab.rn("network rm -f red").ok();
}

fn resolv_conf_replaced_by_another_file_is_seen(lab: &Lab) {
    let _upstream = Upstream::start(lab);
    use_resolver("nameserver 192.0.2.99\n").expect("a file");
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let web = lab.namespace("web");
    lab.rn("network connect blue web").ok();
    let web = Asker::new(lab, &web, "blue");
    assert_eq!(web.a("www.example"), "SERVFAIL");
    // By rename, as every editor does it.
    while rustix::mount::unmount("/etc/resolv.conf", rustix::mount::UnmountFlags::DETACH).is_ok() {}
    let replace = |text: &str| {
        std::fs::write("/etc/resolv.new", text).expect("a file");
        std::fs::rename("/etc/resolv.new", "/etc/resolv.conf").expect("a file");
    };
    replace("nameserver 192.0.2.2\n");
    until("the new file is read", || web.a("www.example") == "NOERROR 203.0.113.7");
    let many: String = (0..100).map(|n| format!("nameserver 10.90.0.1\nsearch x{n}.example\n")).collect();
    replace(&many);
    let began = Instant::now();
    until("the resolver does not ask itself", || web.a("other.example") == "SERVFAIL");
    assert!(began.elapsed() < PATIENCE);
    replace("");
    assert_eq!(web.a("third.example"), "SERVFAIL");
    assert_eq!(web.a("web"), "NOERROR 10.90.0.2");
    use_resolver("nameserver 192.0.2.254\n").expect("a file");
    lab.rn("network rm -f blue").ok();
}
