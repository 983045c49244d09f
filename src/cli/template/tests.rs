//! What templates print, and what they refuse.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;

fn network() -> Json {
    json!({
        "Name": "blue", "ID": "0123456789abcdef", "Driver": "bridge", "Internal": false, "MTU": 1500,
        "Ratio": 1.5, "Big": 12345678901234567890u64, "Peer": null, "Aliases": ["web", "db"],
        "Labels": {"tier": "front", "com.example.x": "1"}, "Options": {},
        "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.1.0.0/16"}, {"Subnet": "fd00::/64"}]},
        "Containers": {"f2": {"Name": "web"}, "a1": {"Name": "db"}},
    })
}

fn rendered(source: &str) -> String {
    let result = source.parse::<Template>().and_then(|template| template.render(&network()));
    result.unwrap_or_else(|error| error.to_string())
}

/// Each line is a template, ` => `, and what it must print.
fn check(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        assert_eq!(rendered(source), *expected, "{source}");
    }
}

#[test]
fn fields_and_values_print_as_in_go() {
    check(&[
        ("", ""),
        ("plain", "plain"),
        ("{{/* nothing */}}", ""),
        ("{{.Name}} {{.IPAM.Driver}} {{$.Name}} {{(.Name)}}", "blue default blue blue"),
        ("{{.Internal}} {{.MTU}} {{.Ratio}} {{.Big}}", "false 1500 1.5 12345678901234567890"),
        ("{{.Peer}}", "<no value>"),
        ("{{.Aliases}} {{.Labels}} {{.Options}}", "[web db] map[com.example.x:1 tier:front] map[]"),
        ("{{.IPAM}}", "map[Config:[map[Subnet:10.1.0.0/16] map[Subnet:fd00::/64]] Driver:default]"),
        ("{{(index .IPAM.Config 1).Subnet}}", "fd00::/64"),
        (r#"{{"a\tb"}} {{`raw\n`}} {{1}} {{-2}} {{0x1f}} {{1.5}} {{true}}"#, "a\tb raw\\n 1 -2 31 1.5 true"),
    ]);
}

#[test]
fn blocks_follow_go() {
    check(&[
        ("{{range .Aliases}}{{.}};{{end}}", "web;db;"),
        ("{{range .Options}}x{{else}}none{{end}}", "none"),
        ("{{range .Peer}}x{{else}}none{{end}}", "none"),
        ("{{range $k, $v := .Containers}}{{$k}}={{$v.Name}} {{end}}", "a1=db f2=web "),
        ("{{range $i, $e := .Aliases}}{{if $i}}, {{end}}{{$e}}{{end}}", "web, db"),
        ("{{range .Aliases}}{{if eq . \"web\"}}{{continue}}{{end}}{{.}}{{end}}", "db"),
        ("{{range .Aliases}}{{.}}{{break}}{{end}}", "web"),
        ("{{range .IPAM.Config}}{{.Subnet}} on {{$.Name}} {{end}}", "10.1.0.0/16 on blue fd00::/64 on blue "),
        ("{{if .Internal}}a{{else if .Peer}}b{{else}}c{{end}}", "c"),
        ("{{with .IPAM}}{{.Driver}}{{end}}{{with .Options}}x{{else}}-{{end}}", "default-"),
        ("{{$x := .Name}}{{if true}}{{$x = \"red\"}}{{end}}{{$x}}", "red"),
        ("{{with $c := .IPAM.Config}}{{len $c}}{{end}}", "2"),
    ]);
}

#[test]
fn markers_trim_and_comments_vanish() {
    check(&[
        ("a  {{- .Name -}}  b", "ablueb"),
        ("a {{/* }} */}} b", "a  b"),
        ("a {{- /* x */ -}} b", "ab"),
        (r"a\n{{- .Name}}", "ablue"),
    ]);
}

#[test]
fn tab_and_newline_may_be_written_as_two_characters() {
    check(&[
        (r"{{.Name}}\t{{.Driver}}\n", "blue\tbridge\n"),
        (r"a\\tb\x\", "a\\\tb\\x\\"),
        (r#"{{"\\t"}}{{`\n`}}"#, r"\t\n"),
        (r#"{{"}}\t"}}"#, "}}\t"),
    ]);
}

#[test]
fn functions_of_go_are_known() {
    check(&[
        ("{{and 1 0}} {{or \"\" .Name}} {{not .Internal}}", "0 blue true"),
        (
            "{{eq .Name \"red\" \"blue\"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}",
            "true true true true false false",
        ),
        ("{{and .Peer .Peer.Name}}", "<no value>"),
        ("{{len .Name}} {{len .Aliases}} {{len .Labels}}", "4 2 2"),
        ("{{slice .Name 1 3}} {{slice .Aliases 1}}", "lu [db]"),
        ("{{print 1 2 \"a\" 3}} {{println .Name 1}}", "1 2a3 blue 1\n"),
        (
            "{{printf \"%-6s|%4d|%q|%v|%.2f|%x|%t\" .Name .MTU .Name .Aliases .Ratio 255 true}}",
            "blue  |1500|\"blue\"|[web db]|1.50|ff|true",
        ),
        ("{{.Name | printf \"%s-%s\" \"a\" | upper}}", "A-BLUE"),
        ("{{html \"<a>\"}} {{js \"'\"}} {{urlquery \"a b/c\"}}", "&lt;a&gt; \\' a+b%2Fc"),
    ]);
}

#[test]
fn functions_of_docker_are_known() {
    check(&[
        ("{{json .Aliases}} {{json .Name}} {{json .Peer}}", r#"["web","db"] "blue" null"#),
        (
            "{{json .IPAM}}",
            r#"{"Driver":"default","Config":[{"Subnet":"10.1.0.0/16"},{"Subnet":"fd00::/64"}]}"#,
        ),
        ("{{json .Big}} {{json .Ratio}} {{json \"<&>\"}}", r#"12345678901234567890 1.5 "<&>""#),
        ("{{join .Aliases \", \"}} {{split \"a-b\" \"-\"}} {{split \"ab\" \"\"}}", "web, db [a b] [a b]"),
        ("{{lower \"AbC\"}} {{upper \"abC\"}} {{title \"one two-three\"}}", "abc ABC One Two-Three"),
        ("[{{pad .Name 1 2}}] [{{pad \"\" 1 2}}]", "[ blue  ] []"),
        ("{{truncate .ID 12}} {{truncate .Name 12}} {{truncate \"äöü\" 2}}", "0123456789ab blue äö"),
    ]);
}

#[test]
fn labels_are_asked_by_name() {
    check(&[
        ("{{.Label \"tier\"}}[{{.Label \"nope\"}}]", "front[]"),
        ("{{with $n := .}}{{$n.Label \"com.example.x\"}}{{end}}", "1"),
        ("{{if .Label \"tier\"}}y{{end}}{{json .Labels}}", r#"y{"tier":"front","com.example.x":"1"}"#),
    ]);
    let row: Template = "{{.Label \"b\"}}".parse().expect("a template");
    assert_eq!(row.render(&json!({"Labels": "a=1,b=2=3"})), Ok("2=3".to_owned()));
}

#[test]
fn index_answers_with_nothing_for_a_key_that_is_not_there() {
    check(&[
        ("{{index .Labels \"com.example.x\"}}[{{index .Labels \"nope\"}}]", "1[]"),
        ("{{if index .Options \"x\"}}y{{else}}n{{end}}", "n"),
        ("{{index .Containers \"a1\" \"Name\"}}[{{index .Peer \"x\"}}]", "db[]"),
    ]);
}

#[test]
fn a_field_that_is_not_there_is_refused_with_the_fields_that_are() {
    check(&[
        (
            "{{.Nmae}}",
            "template: .Nmae: no such field; the fields are Aliases, Big, Containers, Driver, ID, IPAM, \
             Internal, Labels, MTU, Name, Options, Peer, Ratio",
        ),
        ("{{.IPAM.Nope}}", "template: .IPAM.Nope: no such field; the fields are Config, Driver"),
        ("{{.IPAM.Nope.Deeper}}", "template: .IPAM.Nope: no such field; the fields are Config, Driver"),
        (
            "{{range .IPAM.Config}}{{.Gateway}}{{end}}",
            "template: .Gateway: no such field; the fields are Subnet",
        ),
        ("{{.Options.mtu}}", "template: .Options.mtu: no such field; there are none here"),
        (
            "{{.Label \"tier\"}}{{.IPAM.Nope}}",
            "template: .IPAM.Nope: no such field; the fields are Config, Driver",
        ),
    ]);
}

#[test]
fn errors_say_what_and_where_in_one_line() {
    check(&[
        ("ab {{.Name", "template: unclosed action at 1:4"),
        (r"\t\nä{{foo}}", "template: there is no function foo at 1:8"),
        ("a\n  {{end}}", "template: unexpected {{end}} at 2:3"),
        ("{{$x}}", "template: there is no variable $x at 1:3"),
        ("{{if .Name}}{{$x := 1}}{{end}}{{$x}}", "template: there is no variable $x at 1:33"),
        ("{{if}}{{end}}", "template: a value is missing in the action at 1:1"),
        ("{{.Name | }}", "template: a value is missing in the action at 1:1"),
        ("{{if .Name}}", "template: no {{end}} for the block at 1:1"),
        ("{{if .Name}}{{else}}{{else}}{{end}}", "template: unexpected {{else}} at 1:21"),
        ("{{end .Name}}", "template: unexpected .Name at 1:7"),
        ("{{break}}", "template: {{break}} outside a range at 1:1"),
        ("{{range .Aliases}}{{else}}{{break}}{{end}}", "template: {{break}} outside a range at 1:27"),
        ("{{(.Name}}", "template: unclosed parenthesis at 1:3"),
        ("{{.Name)}}", "template: unexpected ) at 1:8"),
        ("{{\"a\nb\"}}", "template: unclosed string at 1:3"),
        (r#"{{"\q"}}"#, "template: unknown escape in a string at 1:4"),
        ("{{1x}}", "template: 1x is no number at 1:3"),
        ("{{define \"a\"}}{{end}}", "template: define is not known here: a format is one template at 1:1"),
        ("{{.Name.First}}", "template: .Name.First: no such field; \"blue\" has none"),
        ("{{.Peer.Name}}", "template: .Peer.Name: no such field; null has none"),
        ("{{.Name 1}}", "template: .Name 1: only functions and .Label take arguments"),
        ("{{index .Aliases 7}}", "template: index .Aliases 7: 7 is out of range: there are 2"),
        ("{{range .Name}}{{end}}", "template: .Name: range cannot go through \"blue\""),
        ("{{eq .Name 1}}", "template: eq .Name 1: cannot compare \"blue\" with 1"),
        ("{{upper .MTU}}", "template: upper .MTU: takes a string, not 1500"),
        ("{{upper}}", "template: upper: takes 1 argument, not 0"),
        ("{{print len}}", "template: len: takes 1 argument, not 0"),
        ("{{pad .Name -1 0}}", "template: pad .Name -1 0: takes a number from 0 to 60000, not -1"),
    ]);
}

#[test]
fn printf_follows_go() {
    let verbs = [
        (
            r#"%5d|%-5d|%05d|%+d|% d|%x|%X|%#x|%o|%b|%c|%U" 42 42 -42 42 42 255 255 255 8 5 65 65"#,
            "   42|42   |-0042|+42| 42|ff|FF|0xff|10|101|A|U+0041",
        ),
        (r#"%5s|%-5s|%.2s|%q|%x" "ab" "ab" "abc" "a\"b" "ab""#, r#"   ab|ab   |ab|"a\"b"|6162"#),
        (
            r#"%f|%.1f|%8.2f|%e|%g|%.3g|%v" 1.5 1.25 1.5 1500.5 0.5 1234.5 1e21"#,
            "1.500000|1.2|    1.50|1.500500e+03|0.5|1.23e+03|1e+21",
        ),
        (r#"%t|%v|%*d|%%|%T" true nil 4 7 "a""#, "true|<nil>|   7|%|string"),
        (r#"%d|%s|%d" "a" 1"#, "%!d(string=a)|%!s(int=1)|%!d(MISSING)"),
        (r#"%d" 1 "a" 2"#, "1%!(EXTRA string=a, int=2)"),
        (r#"%q %3d" .Aliases (split "" "x")"#, r#"["web" "db"] [%!d(string=)]"#),
        (r#"%""#, "%!(NOVERB)"),
    ];
    for (arguments, expected) in verbs {
        assert_eq!(rendered(&format!("{{{{printf \"{arguments}}}}}")), expected, "{arguments}");
    }
}

#[test]
fn numbers_are_those_of_go() {
    check(&[
        ("{{1000000.0}} {{1e20}} {{1e21}} {{0.0001}}", "1e+06 1e+20 1e+21 0.0001"),
        ("{{0.00001}} {{1_000}} {{017}} {{'a'}}", "1e-05 1000 15 97"),
        ("{{eq 1 1.0}} {{lt 1 1.5}} {{lt \"a\" \"b\"}} {{eq .Peer nil}}", "true true true true"),
        ("{{range 3}}{{.}}{{end}} {{range $i := 2}}{{$i}}{{end}}", "012 01"),
        ("{{with .Options}}a{{else with .Name}}{{.}}{{else}}b{{end}}", "blue"),
    ]);
}

#[test]
fn what_a_template_may_cost_is_bounded() {
    let long = "x".repeat(LONGEST_TEMPLATE + 1);
    assert_eq!(rendered(&long), "template: longer than 65536 bytes");
    let doubling = "{{$x := \"xx\"}}{{range 64}}{{$x = print $x $x}}{{end}}";
    assert_eq!(rendered(doubling), "template: print $x $x: makes more than 16 MiB");
    let remade = "{{$x := printf \"%9999v\" 1}}{{range 59999}}{{$y := print $x}}{{end}}";
    assert_eq!(rendered(remade), "template: print $x: the functions together make too much");
    let chatty = "{{$x := printf \"%9999v\" 1}}{{range 9999}}{{$x}}{{end}}";
    assert_eq!(rendered(chatty), "template: prints more than 16 MiB");
    assert_eq!(rendered("{{range 60001}}{{end}}"), "template: 60001: range cannot go through 60001");
    let nested = "{{range 60000}}{{range 60000}}{{break}}{{end}}{{end}}";
    assert_eq!(rendered(nested), "template: takes more than 1000000 steps");
    for verb in ["f\" 1.5", "e\" 1.5", "g\" 1.5", "x\" 7", "d\" 7", "s\" .Name"] {
        let wide = format!("{{{{printf \"%99999.99999{verb} | len | le 60000}}}}");
        assert_eq!(rendered(&wide), "true", "{verb}");
    }
    assert_eq!(rendered(&"{{if 1}}".repeat(65)), "template: nested deeper than 64 levels at 1:513");
    let parentheses = format!("{{{{{}1}}}}", "(".repeat(60_000));
    assert_eq!(rendered(&parentheses), "template: nested deeper than 64 levels at 1:67");
    let branches = format!("{{{{if 0}}}}{}{{{{end}}}}", "{{else if 0}}".repeat(4000));
    assert_eq!(rendered(&branches), "");
    let deep = (0..1000).fold(Json::Null, |inner, _| json!([inner]));
    let refused = "{{.}}".parse::<Template>().and_then(|template| template.render(&deep));
    assert_eq!(refused, Err(TemplateError("the value is nested deeper than 128 levels".to_owned())));
}

#[test]
fn the_word_table_is_told_from_the_template() {
    assert_eq!(Template::strip_table(r"table {{.ID}}\t{{.Name}}"), Some(r"{{.ID}}\t{{.Name}}"));
    assert_eq!(Template::strip_table("table{{.ID}}"), Some("{{.ID}}"));
    assert_eq!(Template::strip_table("table"), Some(""));
    assert_eq!(Template::strip_table("tables"), None);
    assert_eq!(Template::strip_table("{{.ID}}"), None);
}

#[test]
fn headers_are_the_printed_fields_of_the_value_itself() {
    let headers = |source: &str| source.parse::<Template>().expect("a template").headers();
    assert_eq!(headers(r"{{.ID}}\t{{.Name}}"), ["ID", "Name"]);
    assert_eq!(headers("{{- truncate (.ID) 12 -}} {{.Name | upper}}"), ["ID", "Name"]);
    assert_eq!(headers("{{if .Internal}}{{$.Name}}{{else}}{{.IPAM.Driver}}{{end}}"), ["Name", "IPAM"]);
    assert_eq!(
        headers("{{range .Aliases}}{{.Name}}{{end}}{{$x := .ID}}{{$x}}{{printf \".A %s\" .B}}"),
        ["B"]
    );
    assert_eq!(headers("{{/* .ID */}}{{\"}}.ID\"}}.Name"), Vec::<String>::new());
}

const FRAGMENTS: &str = r#"
    {{ }} {{- -}} . .Name .Nope .Labels .IPAM.Config .Aliases .Label $ $x := = , | ( ) " "a" ` ' 'a' /* */
    \ \t \n ä 0 7 -1 1e9 0x 99999999999999999999 1_0 true nil ~ ~-~ ~and~ ~eq~
    {{if~.Name}} {{range~.Aliases}} {{range~$i,~$x~:=~.Containers}} {{with~.IPAM}} {{range~99}}
    {{else}} {{else~if~.Name}} {{else~with~.}} {{end}} {{break}} {{continue}} {{define~"a"}}
    {{$x~:=~.}} {{$x~=~print~$x~$x}} {{.Label~"tier"}} {{.}} {{(((.Name)))}} {{printf~"%v"~.}}"#;

const FUNCTION_NAMES: &str = "and or not eq ne lt le gt ge len index slice print printf println html js
    urlquery json join split lower upper title pad truncate .Label $.Label range if with";

const ARGUMENTS: &str = r#"
    . .Name .Labels .IPAM.Config .Aliases .Peer .Big .Ratio "%9s%d%q%[9]v%*d" "%+-#~08.3x%g%e%U%c%T%"
    "%*.*e" "ä€" "" "ä" -1 0 1 3 60000 60001 9999999999 1e300 1e-300 2.50 nil true (len~.Name)
    (split~.Name~"") (index~.Labels~"x")"#;

/// One of the words of a list; `~` stands for a blank.
fn word_of(list: &'static str) -> impl Strategy<Value = String> {
    let words: Vec<String> = list.split_whitespace().map(|word| word.replace('~', " ")).collect();
    prop::sample::select(words)
}

fn call() -> impl Strategy<Value = String> {
    (word_of(FUNCTION_NAMES), prop::collection::vec(word_of(ARGUMENTS), 0..5))
        .prop_map(|(name, args)| format!("{{{{{name} {}}}}}", args.join(" ")))
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![8 => word_of(FRAGMENTS), 6 => call(), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_template_panics_and_every_error_is_one_line(parts in prop::collection::vec(part(), 0..16)) {
        if let Err(error) = parts.concat().parse::<Template>().and_then(|template| {
            template.headers();
            template.render(&network())
        }) {
            let shown = error.to_string();
            prop_assert!(shown.starts_with("template: ") && !shown.contains(char::is_control), "{}", shown);
        }
    }
}
