//! How containers come to ask: their files.

use crate::{harness::tests, lab::Lab};

tests! {
    containers_get_it_without_doing_anything,
    files_that_somebody_gave_a_namespace_stay,
    a_running_container_gets_to_know_its_new_networks,
}

fn containers_get_it_without_doing_anything(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.91.0.0/24 red").ok();
    let _db = lab.namespace("db");
    lab.rn("network connect --alias mysql blue db").ok().silent();
    for name in ["db", "mysql", "DB.blue"] {
        let words = ["run", "--network", "blue", "--", "getent", "ahostsv4", name];
        lab.rnet(&words).ok().mentions("10.90.0.2");
    }
    lab.sh("ip netns exec db getent ahostsv4 host.rnet.internal").ok().mentions("10.90.0.1");
    lab.rn("exec db -- getent ahostsv4 mysql").ok().mentions("10.90.0.2");
    lab.rn("exec db -- cat /etc/resolv.conf").ok().prints("nameserver 10.90.0.1\n");
    lab.rn("network connect red db").ok();
    lab.rn("exec db -- cat /etc/resolv.conf").ok().prints("nameserver 10.90.0.1\nnameserver 10.91.0.1\n");
    lab.rn("network disconnect blue db").ok();
    lab.rn("exec db -- cat /etc/resolv.conf").ok().prints("nameserver 10.91.0.1\n");
    lab.rn("network disconnect red db").ok();
    assert!(!std::path::Path::new("/etc/netns/db").exists(), "files of a container that is in no network");
    lab.rn("network rm blue red").ok();
}

fn files_that_somebody_gave_a_namespace_stay(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    let _db = lab.namespace("db");
    std::fs::create_dir_all("/etc/netns/db").expect("a folder");
    std::fs::write("/etc/netns/db/resolv.conf", "nameserver 192.0.2.254\n").expect("a file");
    lab.rn("network rm blue").ok();
    lab.prepared();
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network connect blue db").ok().silent();
    lab.sh("ip netns exec db cat /etc/resolv.conf").ok().prints("nameserver 192.0.2.254\n");
    lab.rn("network disconnect blue db").ok();
    lab.rn("network rm blue").ok();
    lab.is_clean();
}

fn a_running_container_gets_to_know_its_new_networks(lab: &Lab) {
    lab.rn("network create --subnet 10.90.0.0/24 blue").ok();
    lab.rn("network create --subnet 10.91.0.0/24 red").ok();
    lab.rn("run -d --name web --network blue --dns 192.0.2.2 --dns-search example -- sleep 1000").ok();
    let shown = || lab.rn("exec web -- cat /etc/resolv.conf").ok().stdout().to_owned();
    assert_eq!(shown(), "nameserver 10.90.0.1\nsearch example\n");
    lab.rn("network connect red web").ok();
    assert_eq!(shown(), "nameserver 10.90.0.1\nnameserver 10.91.0.1\nsearch example\n");
    lab.rn("network disconnect blue web").ok();
    assert_eq!(shown(), "nameserver 10.91.0.1\nsearch example\n");
    lab.rn("exec web -- sh").ok();
    lab.sh("rnet exec web -- sh -c 'echo nameserver 192.0.2.9 >/etc/resolv.conf'").ok();
    lab.rn("network connect blue web").ok();
    assert_eq!(shown(), "nameserver 192.0.2.9\n", "what somebody wrote stays");
    lab.rn("rm -f web").ok();
    lab.rn("network rm blue red").ok();
}
