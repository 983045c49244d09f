//! The words of connect and disconnect, read at once: clap builds a model of all words first, which costs a tenth of a
//! whole connect. Never refuses anything: what is not plainly right is left to clap, which says what is wrong with it.
//!
//! What this reads, clap reads in the same way; a test compares them on random words.

use std::{env, ffi::OsString};

use super::args::{Args, Command, Connect, Disconnect, Global, NetworkCommand};

/// The arguments, where the words are a plain connect or disconnect; the first word is the command's own name.
pub(super) fn read(words: &[OsString]) -> Option<Args> {
    let mut words = words.iter().skip(1).map(|word| word.to_str().filter(|word| !word.is_empty()));
    let mut globals = Globals::default();
    let mut places = Vec::with_capacity(2);
    let mut options = Vec::new();
    let mut verb = None;
    while let Some(word) = words.next() {
        let word = word?;
        if !word.starts_with('-') {
            match (verb, word) {
                (None, "network") => verb = Some(Verb::read(words.next()??)?),
                (None, _) => return None,
                (Some(_), _) => places.push(word),
            }
            continue;
        }
        let (name, inside) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
        let takes = globals.knows(name) || verb.as_ref().is_some_and(|verb| verb.takes_value(name));
        let value = match (takes, inside) {
            (false, None) => "",
            (true, None) => words.next()??,
            (true, Some(value)) if !value.is_empty() && name.starts_with("--") => value,
            _ => return None,
        };
        if value.starts_with('-') {
            return None;
        }
        if !globals.set(name, value)? {
            options.push((name, value));
        }
    }
    let [network, container] = places[..] else { return None };
    let command = match verb? {
        Verb::Connect => NetworkCommand::Connect(connect(network, container, &options)?),
        Verb::Disconnect => NetworkCommand::Disconnect(disconnect(network, container, &options)?),
    };
    Some(Args { global: globals.finish()?, command: Command::Network(command) })
}

#[derive(Clone, Copy)]
enum Verb {
    Connect,
    Disconnect,
}

impl Verb {
    fn read(word: &str) -> Option<Self> {
        match word {
            "connect" => Some(Self::Connect),
            "disconnect" => Some(Self::Disconnect),
            _ => None,
        }
    }

    /// Whether the option is followed by a value. Unknown ones are refused when they are set.
    fn takes_value(self, name: &str) -> bool {
        match self {
            Self::Connect => name != "--dry-run",
            Self::Disconnect => false,
        }
    }
}

#[derive(Default)]
struct Globals<'a> {
    root: Option<&'a str>,
    run: Option<&'a str>,
    log: Option<&'a str>,
}

impl<'a> Globals<'a> {
    fn knows(&self, name: &str) -> bool {
        ["--root", "--run", "--log"].contains(&name)
    }

    /// Takes the option if it is a global one; `None` where it was given before.
    fn set(&mut self, name: &str, value: &'a str) -> Option<bool> {
        match name {
            "--root" => once(&mut self.root, value)?,
            "--run" => once(&mut self.run, value)?,
            "--log" => once(&mut self.log, value)?,
            _ => return Some(false),
        }
        Some(true)
    }

    fn finish(self) -> Option<Global> {
        let or = |given: Option<&str>, variable: &str, otherwise: &str| match given {
            Some(given) => Some(OsString::from(given)),
            None => {
                Some(env::var_os(variable).unwrap_or_else(|| otherwise.into())).filter(|it| !it.is_empty())
            }
        };
        Some(Global {
            root: or(self.root, "RNET_ROOT", "/var/lib/rnet")?.into(),
            run: or(self.run, "RNET_RUN", "/run/rnet")?.into(),
            log: or(self.log, "RNET_LOG", "warn")?.into_string().ok()?,
        })
    }
}

/// What may be given once only.
fn once<T>(place: &mut Option<T>, value: impl Into<T>) -> Option<()> {
    place.replace(value.into()).is_none().then_some(())
}

fn connect(network: &str, container: &str, options: &[(&str, &str)]) -> Option<Connect> {
    let mut wanted =
        Connect { network: network.to_owned(), container: container.to_owned(), ..Connect::default() };
    let mut priority = None;
    for (name, value) in options {
        match *name {
            "--ip" => once(&mut wanted.ip, *value)?,
            "--ip6" => once(&mut wanted.ip6, *value)?,
            "--mac-address" => once(&mut wanted.mac_address, *value)?,
            "--alias" => wanted.alias.push((*value).to_owned()),
            "--interface" => once(&mut wanted.interface, *value)?,
            "-p" | "--publish" => wanted.publish.push((*value).to_owned()),
            "--gw-priority" => once(&mut priority, *value)?,
            "--driver-opt" => wanted.driver_opt.push((*value).to_owned()),
            "--name" => once(&mut wanted.name, *value)?,
            "--format" => once(&mut wanted.format, *value)?,
            "--dry-run" if !wanted.dry_run => wanted.dry_run = true,
            _ => return None,
        }
    }
    wanted.gw_priority = priority.unwrap_or("0").to_owned();
    Some(wanted)
}

fn disconnect(network: &str, container: &str, options: &[(&str, &str)]) -> Option<Disconnect> {
    let mut wanted =
        Disconnect { network: network.to_owned(), container: container.to_owned(), ..Disconnect::default() };
    for (name, _) in options {
        match *name {
            "-f" | "--force" if !wanted.force => wanted.force = true,
            "--dry-run" if !wanted.dry_run => wanted.dry_run = true,
            _ => return None,
        }
    }
    Some(wanted)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    fn by_clap(words: &[OsString]) -> Option<String> {
        Args::try_parse_from(words).ok().map(|args| format!("{args:?}"))
    }

    #[test]
    fn plain_words_are_read_here_and_as_clap_reads_them() {
        for text in [
            "rnet network connect blue web",
            "rnet network connect -p 8080:80 blue web",
            "rnet --root /a --run=/b network connect -p 1:1 --publish 2:2 --publish=3:3 blue --ip 10.0.0.9 web",
            "rnet network connect blue pid:42 --gw-priority 3 --name db --alias a --alias=b --interface eth7",
            "rnet network connect --dry-run --format json --driver-opt a=b --mac-address 02:42:0a:00:00:01 b w",
            "rnet network connect --ip6 fd00::2 blue /run/netns/x --log off",
            "rnet network disconnect blue web",
            "rnet network disconnect -f --dry-run blue web --run /b",
        ] {
            let read = read(&words(text)).map(|args| format!("{args:?}"));
            assert!(read.is_some(), "{text}");
            assert_eq!(read, by_clap(&words(text)), "{text}");
        }
    }

    #[test]
    fn what_is_not_plainly_right_is_left_to_clap() {
        for text in [
            "rnet",
            "rnet network",
            "rnet network connect",
            "rnet network connect blue",
            "rnet network connect blue web more",
            "rnet network connect --ip 1.2.3.4 --ip 1.2.3.4 blue web",
            "rnet network connect -p -1 blue web",
            "rnet network connect --help",
            "rnet network connect -- blue web",
            "rnet network connect --dry-run=true blue web",
            "rnet network disconnect --ip 1.2.3.4 blue web",
            "rnet network connect --nothing x blue web",
            "rnet run -p 80:80",
            "rnet --version",
        ] {
            assert!(read(&words(text)).is_none(), "{text}");
        }
    }

    /// Every option of both verbs, as clap knows them, and words around them.
    fn vocabulary() -> Vec<String> {
        let command = Args::command();
        let network = command.find_subcommand("network").cloned().unwrap_or_default();
        let mut all = Vec::new();
        for verb in ["connect", "disconnect"] {
            let arguments = network.clone();
            let arguments = arguments.find_subcommand(verb).cloned().unwrap_or_default();
            for argument in arguments.get_arguments() {
                all.extend(argument.get_long().map(|long| format!("--{long}")));
                all.extend(argument.get_long().map(|long| format!("--{long}=x")));
                all.extend(argument.get_short().map(|short| format!("-{short}")));
            }
        }
        let others =
            ["--root", "--run=/r", "--log", "--log=", "x", "8080:80", "blue", "web", "-1", "--", "", "-px"];
        all.extend(others.map(str::to_owned));
        all
    }

    proptest! {
        #[test]
        fn whatever_is_read_here_clap_reads_in_the_same_way(
            before in proptest::collection::vec(proptest::sample::select(vocabulary()), 0..3),
            verb in proptest::sample::select(vec!["connect", "disconnect", "create", "ls"]),
            after in proptest::collection::vec(proptest::sample::select(vocabulary()), 0..7),
        ) {
            let words = ["rnet".to_owned()].into_iter().chain(before);
            let words = words.chain(["network".to_owned(), verb.to_owned()]).chain(after);
            let words: Vec<OsString> = words.map(OsString::from).collect();
            if let Some(args) = read(&words) {
                prop_assert_eq!(Some(format!("{args:?}")), by_clap(&words), "{:?}", words);
            }
        }
    }
}
