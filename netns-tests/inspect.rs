//! What is printed: Docker's columns and keys, templates, filters, ids and their prefixes.

use serde_json::{Value, json};

use crate::{
    command,
    harness::tests,
    lab::{Lab, RNET},
};

tests! {
    create_prints_the_id,
    ls_prints_dockers_columns,
    ls_has_its_options,
    ls_follows_its_filters,
    inspect_has_dockers_keys,
    inspect_shows_each_container,
    inspect_of_the_networks_that_are_there_without_being_made,
    inspect_shows_several_networks_and_names_those_not_found,
    inspect_shows_what_was_asked_for,
    templates,
    templates_that_cannot_work_are_refused,
    a_network_is_found_by_id_and_by_a_unique_prefix,
    connect_can_print_the_endpoint,
    ps_shows_containers_with_their_ports,
    completions_and_man_are_printed,
    help_and_version_are_printed,
    a_full_or_closed_stdout_is_an_error_and_no_panic,
    reading_verbs_change_nothing,
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

fn create_prints_the_id(lab: &Lab) {
    let created = lab.rn("network create blue").ok();
    assert!(created.stdout().ends_with('\n') && is_id(created.stdout().trim_end()), "{created}");
    assert_eq!(lab.inspect("blue")["Id"], created.text());
    lab.rn("network rm blue").ok();
}

fn ls_prints_dockers_columns(lab: &Lab) {
    lab.rn("network create blue").ok();
    let id = |name: &str| lab.inspect(name)["Id"].as_str().expect("an id")[..12].to_owned();
    let expected = format!(
        "NETWORK ID     NAME      DRIVER    SCOPE\n\
         {}   blue      bridge    local\n\
         {}   bridge    bridge    local\n\
         {}   host      host      local\n\
         {}   none      null      local\n",
        id("blue"),
        id("bridge"),
        id("host"),
        id("none")
    );
    lab.rn("network ls").ok().prints(&expected);
    lab.rn("network list").ok().prints(&expected);

    lab.rn("network create a-longer-name").ok();
    let wide = lab.rn("network ls").ok();
    let line = wide.stdout().lines().next().unwrap_or_default();
    assert_eq!(line, "NETWORK ID     NAME            DRIVER    SCOPE");
    lab.rn("network rm blue a-longer-name").ok();
}

fn ls_has_its_options(lab: &Lab) {
    let id = lab.rn("network create --label tier=web blue").ok().text();
    lab.rn("network ls -q -f name=blue").ok().prints(&format!("{}\n", &id[..12]));
    lab.rn("network ls -q --no-trunc -f name=blue").ok().prints(&format!("{id}\n"));
    lab.rn("network ls --no-trunc").ok().mentions(&id);
    let object = lab.rn("network ls --format json -f name=blue").ok().json();
    for (key, value) in
        [("Name", "blue"), ("ID", &id[..12]), ("Driver", "bridge"), ("Scope", "local"), ("Internal", "false")]
    {
        assert_eq!(object[key], value, "{key} in {object}");
    }
    assert_eq!(object["Labels"], "tier=web");
    assert_eq!(object["IPv4"], "true");
    assert_eq!(object["IPv6"], "false");
    let lines = lab.rn("network ls --format json").ok();
    assert_eq!(lines.stdout().lines().count(), 4, "one object per line: {lines}");
    let table =
        lab.rnet(&["network", "ls", "-f", "name=blue", "--format", "table {{.Name}}\t{{.Driver}}"]).ok();
    table.prints("NAME      DRIVER\nblue      bridge\n");
    lab.rn("network rm blue").ok();
}

fn ls_follows_its_filters(lab: &Lab) {
    let blue = lab.rn("network create --label tier=web --label red blue").ok().text();
    lab.rn("network create --internal --label tier=db bluebell").ok();
    lab.web("blue", "web", &[]);
    for (filters, names) in [
        ("-f name=blue", "blue\nbluebell\n"),
        ("-f name=bell", "bluebell\n"),
        ("-f name=^blue$", "blue\n"),
        ("-f driver=bridge", "blue\nbluebell\nbridge\n"),
        ("-f driver=null", "none\n"),
        ("-f label=tier", "blue\nbluebell\n"),
        ("-f label=tier=db", "bluebell\n"),
        ("-f label=tier --filter label=red", "blue\n"),
        ("-f type=builtin", "bridge\nhost\nnone\n"),
        ("-f type=custom", "blue\nbluebell\n"),
        ("-f scope=local", "blue\nbluebell\nbridge\nhost\nnone\n"),
        ("-f scope=swarm", ""),
        ("-f dangling=true -f type=custom", "bluebell\n"),
        ("-f dangling=false -f type=custom", "blue\n"),
        ("-f name=blue -f driver=null", ""),
        ("-f name=bell -f name=host", "bluebell\nhost\n"),
    ] {
        lab.rn(&format!("network ls --format {{{{.Name}}}} {filters}")).ok().prints(names);
    }
    lab.rn(&format!("network ls --format {{{{.Name}}}} -f id={}", &blue[..12])).ok().prints("blue\n");
    lab.rn("network ls -f colour=blue").refused(&["colour"]);
    lab.rn("network ls -f name").refused(&["name"]);
    lab.rn("network ls -f dangling=perhaps").refused(&["perhaps"]);
    lab.rn("network ls -f type=odd").refused(&["odd"]);
    lab.rn("network rm -f blue bluebell").ok();
}

fn inspect_has_dockers_keys(lab: &Lab) {
    let id = lab.rn("network create --label tier=web -o com.docker.network.driver.mtu=1400 blue").ok().text();
    let mut shown = lab.inspect("blue");
    let created = shown["Created"].as_str().expect("a time").to_owned();
    let clock = created.split_once('T').is_some_and(|(day, time)| day.len() == 10 && time.len() >= 9);
    assert!(clock && (created.ends_with('Z') || created.contains('+')), "RFC 3339: {created}");
    shown["Created"] = Value::Null;
    let expected = json!({
        "Name": "blue", "Id": id, "Created": null, "Scope": "local", "Driver": "bridge",
        "EnableIPv4": true, "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": {}, "Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]},
        "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": {"Network": ""}, "ConfigOnly": false,
        "Containers": {}, "Options": {"com.docker.network.driver.mtu": "1400"}, "Labels": {"tier": "web"},
    });
    assert_eq!(shown, expected, "{shown:#}");

    let text = lab.rn("network inspect blue").ok().text();
    let keys = "Name Id Created Scope Driver EnableIPv4 EnableIPv6 IPAM Internal Attachable Ingress ConfigFrom ConfigOnly \
                Containers Options Labels";
    let places: Vec<_> = keys.split(' ').map(|key| text.find(&format!("\n        \"{key}\": "))).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "keys in Docker's order, indented by 4:\n{text}"
    );
    lab.rn("network rm blue").ok();
}

fn inspect_shows_each_container(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.web("blue", "web", &["-p", "192.0.2.1:8080:80"]);
    lab.web("blue", "db", &[]);
    let shown = lab.inspect("blue");
    assert_eq!(shown["Containers"].as_object().map(serde_json::Map::len), Some(2), "{shown:#}");
    let web = lab.endpoint("blue", "web");
    assert!(is_id(web["EndpointID"].as_str().unwrap_or_default()), "{web:#}");
    assert_eq!(web["MacAddress"], "02:42:ac:12:00:02");
    assert_eq!(web["IPv4Address"], "172.18.0.2/16");
    assert_eq!(web["IPv6Address"], "");
    assert_eq!(web["Interface"], "eth0");
    assert_eq!(web["NetNS"], "/run/netns/web");
    assert_eq!(web["Ports"], json!({"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "8080"}]}));
    let db = lab.endpoint("blue", "db");
    assert_eq!(db["IPv4Address"], "172.18.0.3/16");
    assert_eq!(db["Ports"], json!({}));
    assert_ne!(db["EndpointID"], web["EndpointID"]);
    lab.rn("network rm -f blue").ok();
}

fn inspect_of_the_networks_that_are_there_without_being_made(lab: &Lab) {
    let bridge = lab.inspect("bridge");
    assert_eq!(bridge["Driver"], "bridge");
    assert_eq!(bridge["IPAM"]["Config"], json!([{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]));
    assert_eq!(bridge["Options"]["com.docker.network.bridge.name"], "rnet0");
    assert_eq!(lab.inspect("host")["Driver"], "host");
    assert_eq!(lab.inspect("none")["Driver"], "null");
    for name in ["bridge", "host", "none"] {
        let shown = lab.inspect(name);
        assert!(is_id(shown["Id"].as_str().unwrap_or_default()), "{shown:#}");
        assert_eq!(shown["Id"], lab.inspect(name)["Id"], "the id of {name} stays the same");
        assert_eq!(shown["Scope"], "local");
    }
}

fn inspect_shows_several_networks_and_names_those_not_found(lab: &Lab) {
    lab.rn("network create blue").ok();
    let both = lab.rn("network inspect blue bridge").ok().json();
    assert_eq!((&both[0]["Name"], &both[1]["Name"]), (&json!("blue"), &json!("bridge")));
    let some = lab.rn("network inspect blue nowhere").failed_after_output(&["nowhere"]);
    assert_eq!(some.json()[0]["Name"], "blue");
    lab.rn("network rm blue").ok();
}

fn inspect_shows_what_was_asked_for(lab: &Lab) {
    let options = "--internal --attachable --subnet 10.60.0.0/24 --gateway 10.60.0.1 --ip-range 10.60.0.128/25 \
                   --aux-address printer=10.60.0.9 --label a=b=c --label plain -o icc=false";
    lab.rn(&format!("network create {options} blue")).ok();
    let shown = lab.inspect("blue");
    assert_eq!(shown["Internal"], true);
    assert_eq!(shown["Attachable"], true);
    assert_eq!(shown["Labels"], json!({"a": "b=c", "plain": ""}));
    assert_eq!(
        shown["IPAM"]["Config"],
        json!([{
            "Subnet": "10.60.0.0/24", "IPRange": "10.60.0.128/25", "Gateway": "10.60.0.1",
            "AuxiliaryAddresses": {"printer": "10.60.0.9"},
        }])
    );
    lab.rn("network rm blue").ok();
}

fn templates(lab: &Lab) {
    let id = lab.rn("network create --label tier=web blue").ok().text();
    lab.web("blue", "web", &[]);
    let inspect =
        |template: &str| lab.rnet(&["network", "inspect", "--format", template, "blue"]).ok().text();
    assert_eq!(inspect("{{.Name}}"), "blue");
    assert_eq!(inspect("{{.Id}} is {{.Driver}}"), format!("{id} is bridge"));
    assert_eq!(inspect("{{json .Labels}}"), r#"{"tier":"web"}"#);
    assert_eq!(
        inspect("{{range .IPAM.Config}}{{.Subnet}} via {{.Gateway}}{{end}}"),
        "172.18.0.0/16 via 172.18.0.1"
    );
    assert_eq!(inspect("{{(index .IPAM.Config 0).Gateway}}"), "172.18.0.1");
    assert_eq!(inspect("{{index .Labels \"tier\"}}"), "web");
    assert_eq!(
        inspect("{{range $id, $c := .Containers}}{{$c.Name}}={{$c.IPv4Address}};{{end}}"),
        "web=172.18.0.2/16;"
    );
    assert_eq!(inspect("{{if .Internal}}in{{else}}out{{end}}"), "out");
    assert_eq!(inspect("{{len .Containers}}"), "1");
    assert_eq!(inspect("{{if eq .Driver \"bridge\"}}yes{{end}}"), "yes");
    assert_eq!(inspect("{{upper .Name}}"), "BLUE");
    let whole: Value = serde_json::from_str(&inspect("{{json .}}")).expect("JSON");
    assert_eq!(whole, lab.inspect("blue"));
    let short = lab.rnet(&["network", "inspect", "-f", "{{.Name}}", "blue", "bridge"]).ok();
    short.prints("blue\nbridge\n");
    assert_eq!(lab.rn("network inspect --format json blue").ok().json()[0]["Name"], "blue");

    lab.rnet(&["network", "ls", "--format", "{{.ID}}: {{.Name}}", "-f", "name=blue"])
        .ok()
        .prints(&format!("{}: blue\n", &id[..12]));
    let line = lab.rnet(&["network", "ls", "--format", "{{json .}}", "-f", "name=blue"]).ok().json();
    assert_eq!(line["Name"], "blue");
    lab.rnet(&["network", "ls", "-f", "name=blue", "--format", "{{.Label \"tier\"}}"]).ok().prints("web\n");
    lab.rn("network rm -f blue").ok();
}

fn templates_that_cannot_work_are_refused(lab: &Lab) {
    for template in
        ["{{.Nope}}", "{{", "{{.Name", "{{range .Labels}}", "{{end}}", "{{nosuch .Name}}", "{{if}}x{{end}}"]
    {
        lab.rnet(&["network", "inspect", "--format", template, "bridge"]).refused(&["template"]);
        lab.rnet(&["network", "ls", "--format", template]).refused(&["template"]);
    }
}

fn a_network_is_found_by_id_and_by_a_unique_prefix(lab: &Lab) {
    let mut ids: Vec<String> = Vec::new();
    // Seventeen networks with sixteen first digits: two at least share theirs.
    for number in 0..17 {
        ids.push(lab.rn(&format!("network create --subnet 10.61.{number}.0/24 net{number}")).ok().text());
    }
    assert_eq!(lab.inspect(&ids[3])["Name"], "net3");
    assert_eq!(lab.inspect(&ids[3][..12])["Name"], "net3");
    let shared = ids.iter().find(|id| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1);
    let digit = &shared.expect("seventeen ids")[..1];
    lab.rnet(&["network", "inspect", digit]).failed_after_output(&[digit]);
    lab.rnet(&["network", "rm", digit]).refused(&[digit]);

    // A name wins against the id of another.
    let prefix = &ids[0][..6];
    lab.rnet(&["network", "create", "--subnet", "10.62.0.0/24", prefix]).ok();
    assert_eq!(lab.inspect(prefix)["Name"], prefix);
    lab.rnet(&["network", "rm", prefix]).ok();
    assert_eq!(lab.inspect(prefix)["Name"], "net0");

    let web = lab.namespace("web");
    lab.rnet(&["network", "connect", &ids[1][..12], "web"]).ok();
    assert_eq!(web.addresses("eth0"), ["10.61.1.2/24"]);
    lab.rnet(&["network", "disconnect", &ids[1], "web"]).ok();
    lab.rnet(&["network", "rm", &ids[1][..12]]).ok().prints(&format!("{}\n", &ids[1][..12]));
    lab.rn("network prune -f").ok();
}

fn connect_can_print_the_endpoint(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.namespace("web");
    let endpoint = lab.rn("network connect --format json -p 8080:80 blue web").ok().json();
    assert_eq!(endpoint["IPv4Address"], "172.18.0.2/16");
    assert_eq!(endpoint["MacAddress"], "02:42:ac:12:00:02");
    assert_eq!(endpoint["Interface"], "eth0");
    assert_eq!(endpoint["EndpointID"], lab.endpoint("blue", "web")["EndpointID"]);
    lab.rn("network rm -f blue").ok();
}

fn ps_shows_containers_with_their_ports(lab: &Lab) {
    let nothing = lab.rn("ps").ok();
    assert_eq!(nothing.stdout().lines().count(), 1, "the heading alone: {nothing}");
    lab.rn("network create blue").ok();
    lab.web("blue", "web", &["-p", "192.0.2.1:8080:80"]);
    lab.web("blue", "db", &[]);
    let shown = lab.rn("ps").ok();
    let lines: Vec<&str> = shown.stdout().lines().skip(1).collect();
    assert_eq!(lines.len(), 2, "{shown}");
    let web = lines.iter().find(|line| line.split_whitespace().any(|word| word == "web"));
    assert!(web.is_some_and(|line| line.contains("192.0.2.1:8080->80/tcp")), "{shown}");
    lab.rnet(&["ps", "--format", "{{.Names}}"]).ok().mentions("web\n").mentions("db\n");
    assert_eq!(lab.rn("ps -q").ok().stdout().lines().count(), 2);
    lab.rn("network rm -f blue").ok();
    assert_eq!(lab.rn("ps").ok().stdout().lines().count(), 1);
}

fn completions_and_man_are_printed(lab: &Lab) {
    for shell in ["bash", "zsh", "fish"] {
        lab.rnet(&["completions", shell]).ok().mentions("rnet").mentions("network");
    }
    let unknown = lab.rn("completions klingon");
    assert!(!unknown.succeeded() && unknown.stderr().contains("klingon"), "{unknown}");
    lab.rn("man").ok().mentions(".TH").mentions("rnet");
}

fn help_and_version_are_printed(lab: &Lab) {
    lab.rn("--version").ok().mentions("rnet 0");
    for words in
        ["--help", "network --help", "network create --help", "network connect --help", "run --help", "help"]
    {
        lab.rn(words).ok().mentions("rnet");
    }
    lab.rn("network create --help").ok().mentions("--aux-address").mentions("--dry-run");
}

fn a_full_or_closed_stdout_is_an_error_and_no_panic(lab: &Lab) {
    lab.rn("network create blue").ok();
    for line in [
        "network ls",
        "network inspect blue",
        "network create red",
        "ps",
        "completions bash",
        "man",
        "run -- true",
    ] {
        let full = lab.sh(&format!("exec rnet {line} > /dev/full"));
        full.no_panic();
        assert!(line.starts_with("run") || !full.succeeded(), "nothing could be printed: {full}");
        lab.sh(&format!("rnet {line} | true")).no_panic();
        let mut closed = lab.command(RNET, &line.split(' ').collect::<Vec<_>>());
        let closed = command::run(crate::lab::without_stdout(&mut closed));
        closed.no_panic();
        assert!(line.starts_with("run") || !closed.succeeded(), "nothing could be printed: {closed}");
    }
    lab.rn("network rm -f red").ok();
    lab.rn("network rm blue").ok();
}

fn reading_verbs_change_nothing(lab: &Lab) {
    lab.rn("network create blue").ok();
    lab.web("blue", "web", &["-p", "8080:80"]);
    lab.rn("port web").ok().mentions("8080");
    let here = lab.snapshot();
    for line in [
        "network ls",
        "network inspect blue bridge host none",
        "ps",
        "ps -a",
        "port web",
        "network ls -q",
        "man",
    ] {
        lab.rn(line).ok();
        lab.is_like(&here);
    }
    lab.rn("network rm -f blue").ok();
}
