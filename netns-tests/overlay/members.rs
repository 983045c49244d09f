//! What a store can be beyond one member that believes everybody: several of them, TLS, users.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    cluster::{Cluster, addresses, connect, create, remotes},
    store::{Authority, Store, key, pem, private, proofs},
};
use crate::{command::until, harness::tests, lab::Lab};

tests!(
    a_store_behind_tls_is_believed_for_its_certificate,
    what_cannot_be_used_for_tls_is_named,
    a_store_asks_for_a_password,
    one_member_of_three_can_go_or_hang,
    most_members_gone_is_said_soon_and_harms_nobody,
);

/// What the part of the first host says is wrong.
fn trouble(lab: &Lab, cluster: &Cluster) -> String {
    let status = cluster.hosts[0].rn(lab, "agent --status").ok().json();
    status["parts"]["overlay"]["says"]["trouble"].as_str().unwrap_or_default().to_owned()
}

fn a_store_behind_tls_is_believed_for_its_certificate(lab: &Lab) {
    let mut cluster = Cluster::start_with(lab, 2, Store::behind_tls);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    let there = addresses(&two).0;
    until("it is placed", || crate::traffic::tcp_short(&one, &format!("{there}:80")).result().is_ok());
    let good = cluster.store.credentials.clone();
    let stranger = Authority::new("stranger");
    stranger.sign("strange", "rnet");
    // Somebody else's authority, nobody's certificate, somebody else's certificate.
    for (credentials, expected) in [
        (proofs("stranger", "host"), "UnknownIssuer"),
        (vec![("RNET_STORE_CA", pem("ca"))], "ertificate"),
        (proofs("ca", "strange"), "ertificate"),
    ] {
        cluster.kill_agent(lab, 0);
        cluster.store.credentials = credentials;
        cluster.start_agent(lab, 0);
        until("it says why", || trouble(lab, &cluster).contains(expected));
        lab.namespace("c3");
        cluster.hosts[0].rn(lab, "network connect ov c3").refused(&["cannot reserve an address", expected]);
        lab.delete_namespace(&crate::lab::Place::new("c3", "/run/netns/c3"));
        lab.tcp(&one, &format!("{there}:80")).answered_by(&two);
    }
    // A certificate that is renewed while the agent runs is taken with the next connection.
    for (from, to) in [(pem("host"), pem("strange")), (key("host"), key("strange"))] {
        fs::copy(from, to).expect("files");
    }
    connect(lab, &cluster.hosts[0], "c4", &[]);
    cluster.kill_agent(lab, 0);
    cluster.store.credentials = good;
    cluster.start_agent(lab, 0);
    cluster.end(lab);
}

fn what_cannot_be_used_for_tls_is_named(lab: &Lab) {
    let cluster = Cluster::machines(lab, 1, Store::behind_tls);
    let open = format!("{}/open.key", cluster.hosts[0].root());
    fs::create_dir_all(cluster.hosts[0].root()).expect("a directory");
    fs::copy(key("host"), &open).expect("a file");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).expect("its mode");
    let empty = "/run/lab/etcd/empty".to_owned();
    private(&empty, "");
    let other = Authority::new("other");
    other.sign("other-host", "rnet");
    let url = cluster.store.url();
    let plain = url.replace("etcds:", "etcd:");
    let (ca, cert, own) = (pem("ca"), pem("host"), key("host"));
    for (store, words, expected) in [
        (&url, vec![], "TLS needs the certificate of the store's authority: store-ca"),
        (&url, vec![("CERT", &cert)], "store-ca"),
        (&url, vec![("CA", &ca), ("CERT", &cert)], "store-cert and store-key go together"),
        (&url, vec![("CA", &ca), ("KEY", &own)], "store-cert and store-key go together"),
        (&url, vec![("CA", &own)], "host.key: it has no certificate in PEM"),
        (&url, vec![("CA", &ca), ("CERT", &cert), ("KEY", &empty)], "empty: it is no private key in PEM"),
        (&url, vec![("CA", &ca), ("CERT", &cert), ("KEY", &key("other-host"))], "host.pem: "),
        (&url, vec![("CA", &ca), ("CERT", &cert), ("KEY", &open)], "mode 0644): chmod o= "),
        (&url, vec![("CA", &ca), ("PASSWORD_FILE", &open)], "mode 0644): chmod o= "),
        (&url, vec![("CA", &ca), ("PASSWORD_FILE", &own)], "its first line must be USER:PASSWORD"),
        (&url, vec![("CA", &"/nowhere".to_owned())], "/nowhere: No such file"),
        (&plain, vec![("CA", &ca)], "are for a store at etcds://"),
    ] {
        let host = &cluster.hosts[0];
        let mut command = host.command(lab, &["agent", "--foreground"]);
        command.env("RNET_STORE", store).env("RNET_HOST_ADDRESS", &host.address);
        command.envs(words.iter().map(|(name, value)| (format!("RNET_STORE_{name}"), value.as_str())));
        let agent = host.place.inside(|| crate::command::Running::start(&mut command));
        until("the agent answers", || host.rn(lab, "agent --status").succeeded());
        let mut says = String::new();
        let end = Instant::now() + Duration::from_secs(5);
        while !says.contains(expected) {
            says = trouble(lab, &cluster);
            assert!(Instant::now() < end, "{expected:?} is not in {says:?}");
        }
        let refused = host.rn(lab, "network create -d overlay ov");
        refused.refused(&[expected]);
        agent.signal(Signal::TERM);
        agent.wait().ok();
    }
    fs::remove_file(open).expect("the file");
    cluster.end(lab);
}

fn a_store_asks_for_a_password(lab: &Lab) {
    let mut cluster = Cluster::machines(lab, 2, Store::start);
    let file = "/run/lab/etcd/password";
    private(file, "rnet:secret:with:colons\nwhat follows is not read\n");
    cluster.store.credentials = vec![("RNET_STORE_PASSWORD_FILE", file.to_owned())];
    for line in [
        "user add root:root",
        "user grant-role root root",
        "user add rnet:secret:with:colons",
        "role add hosts",
        "role grant-permission --prefix hosts readwrite test/",
        "user grant-role rnet hosts",
        "auth enable",
    ] {
        cluster.store.ctl(lab, line);
    }
    (0..2).for_each(|number| cluster.start_agent(lab, number));
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    let there = format!("{}:80", addresses(&two).0);
    until("it is placed", || crate::traffic::tcp_short(&one, &there).result().is_ok());
    // Tokens end with the member that gave them.
    cluster.store.down();
    cluster.store.up(lab);
    until("it is asked again", || {
        lab.namespace("c3");
        let connected = cluster.hosts[0].rn(lab, "network connect ov c3").succeeded();
        if !connected {
            lab.delete_namespace(&crate::lab::Place::new("c3", "/run/netns/c3"));
        }
        connected
    });
    // A token is old when users are changed.
    cluster.store.ctl(lab, "--user root:root role add more");
    lab.namespace("c4");
    cluster.hosts[0].rn(lab, "network connect ov c4").ok();
    until("they are heard of", || remotes(lab, &cluster.hosts[1]) == 3);
    private(file, "rnet:wrong\n");
    cluster.kill_agent(lab, 0);
    cluster.start_agent(lab, 0);
    until("it says why", || trouble(lab, &cluster).contains("authentication failed"));
    lab.tcp(&one, &there).answered_by(&two);
    private(file, "rnet:secret:with:colons");
    cluster.kill_agent(lab, 0);
    cluster.start_agent(lab, 0);
    cluster.end(lab);
}

fn one_member_of_three_can_go_or_hang(lab: &Lab) {
    let mut cluster = Cluster::start_with(lab, 2, Store::three);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    for round in 0..6 {
        // Each in turn, also the one that leads and the one that the agents use.
        let leader = cluster.store.leader(lab);
        let member = if round < 2 { leader } else { round % 3 };
        let hangs = round % 2 == 0;
        if hangs {
            cluster.store.signal(member, Signal::STOP)
        } else {
            cluster.store.kill(member)
        }
        let name = format!("c{}", round + 2);
        lab.namespace(&name);
        let begun = Instant::now();
        // Nobody waits for a member that hangs for longer than a user does.
        until("it is connected", || {
            cluster.hosts[1].rn(lab, &format!("network connect ov {name}")).succeeded()
        });
        assert!(begun.elapsed() < Duration::from_secs(9), "{name}: {:?}", begun.elapsed());
        let place = crate::lab::Place::new(&name, format!("/run/netns/{name}"));
        lab.listen_tcp(&place, "[::]:80");
        let there = format!("{}:80", addresses(&place).0);
        until("the other host hears of it", || crate::traffic::tcp_short(&one, &there).result().is_ok());
        if hangs { cluster.store.signal(member, Signal::CONT) } else { cluster.store.up(lab) }
    }
    cluster.end(lab);
}

fn most_members_gone_is_said_soon_and_harms_nobody(lab: &Lab) {
    let mut cluster = Cluster::start_with(lab, 2, Store::three);
    create(lab, &cluster, "--subnet 10.9.0.0/24");
    let one = connect(lab, &cluster.hosts[0], "c1", &[]);
    let two = connect(lab, &cluster.hosts[1], "c2", &[]);
    let there = format!("{}:80", addresses(&two).0);
    until("it is placed", || crate::traffic::tcp_short(&one, &there).result().is_ok());
    cluster.store.kill(0);
    cluster.store.kill(1);
    lab.namespace("c3");
    for _ in 0..2 {
        let begun = Instant::now();
        cluster.hosts[0]
            .rn(lab, "network connect ov c3")
            .refused(&["overlay: cannot reserve an address", "running containers are not affected"]);
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        lab.tcp(&one, &there).answered_by(&two);
    }
    cluster.hosts[0].rn(lab, "network disconnect ov c1").ok();
    cluster.store.up(lab);
    until("it goes on", || cluster.hosts[0].rn(lab, "network connect ov c3").succeeded());
    cluster.end(lab);
}
