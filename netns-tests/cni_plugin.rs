//! Calling rnet as a runtime does: variables, a configuration on stdin, an object on stdout.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::lab::{Lab, Place, RNET};

/// One call of a plugin, to be changed before it is run.
pub struct Call<'a> {
    lab: &'a Lab,
    program: String,
    variables: Vec<(String, String)>,
    config: String,
}

/// What a plugin says.
pub struct Reply {
    what: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl<'a> Call<'a> {
    /// The verb for the container's `eth0`; its id is its name.
    pub fn new(lab: &'a Lab, verb: &str, container: &Place, config: &Value) -> Self {
        let netns = format!("/run/netns/{}", container.name());
        Self::bare(lab, verb, config)
            .with("CNI_CONTAINERID", container.name())
            .with("CNI_NETNS", &netns)
            .with("CNI_IFNAME", "eth0")
    }

    /// A verb that is about no container.
    pub fn bare(lab: &'a Lab, verb: &str, config: &Value) -> Self {
        let call = Self { lab, program: RNET.to_owned(), variables: Vec::new(), config: config.to_string() };
        call.with("CNI_COMMAND", verb).with("CNI_PATH", "/run/lab/cni")
    }

    /// With another value for a variable.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a variable.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self
    }

    /// With this text on stdin, whatever it is.
    pub fn stdin(mut self, text: &str) -> Self {
        text.clone_into(&mut self.config);
        self
    }

    /// By that name, as `rnet cni install` made it.
    pub fn plugin(mut self, name: &str) -> Self {
        self.program = format!("/run/lab/cni/{name}");
        self
    }

    /// Ready to be started.
    #[track_caller]
    pub fn command(&self) -> Command {
        let mut command = self.lab.command(&self.program, &[] as &[&str]);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(input(&self.config));
        command
    }

    /// Whether the call was killed, when it makes its `when`th system call of that name.
    #[track_caller]
    pub fn is_killed_at(&self, name: &str, when: usize) -> bool {
        let reply = self.injected(name, &format!("inject={name}:signal=SIGKILL:when={when}"));
        reply.code.is_none() || reply.code == Some(128 + 9)
    }

    /// Runs it with something injected into its calls of that name, as `strace` has it.
    #[track_caller]
    pub fn injected(&self, name: &str, inject: &str) -> Reply {
        self.lab.needs("strace");
        let trace = format!("trace={name}");
        let options = ["-f", "-qq", "-o", "/run/lab/strace", "-e", &trace, "-e", inject, "--", &self.program];
        let mut command = self.lab.command("strace", &options);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let output = command.stdin(input(&self.config)).output().expect("strace runs");
        let reply = self.reply(output);
        assert!(!reply.stderr.contains("panicked"), "{reply}");
        reply
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(&self) -> Reply {
        let output = self.command().output().unwrap_or_else(|error| panic!("{}: {error}", self.program));
        self.reply(output)
    }

    fn reply(&self, output: Output) -> Reply {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("plugins write UTF-8");
        let variables: Vec<String> =
            self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Reply {
            what: format!("{} {} <<< {:.300}", variables.join(" "), self.program, self.config),
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs it to its end, which must be a good one; returns what it printed.
    #[track_caller]
    pub fn ok(&self) -> Value {
        self.run().ok()
    }

    /// Runs it, and it must refuse with this code and these words, and change nothing.
    #[track_caller]
    pub fn refused(&self, code: u32, words: &[&str]) -> Value {
        let before = self.lab.snapshot();
        let error = self.run().refused(code, words);
        self.lab.is_like(&before);
        error
    }
}

/// The text as a file: a runtime's pipe may be closed early, and a file cannot.
fn input(text: &str) -> File {
    let path = Path::new("/run/lab/stdin");
    fs::write(path, text).and_then(|()| File::open(path)).expect("/run/lab")
}

impl Reply {
    /// Whether it said that it worked.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// It worked, or it failed with one error object and changed its mind about nothing else.
    #[track_caller]
    pub fn is_a_result_or_one_error(&self) {
        if self.succeeded() {
            return;
        }
        let error = self.json();
        assert_eq!(self.code, Some(1), "{self}");
        assert!(error["code"].as_u64().is_some_and(|code| code > 0), "{self}");
        assert!(error["msg"].as_str().is_some_and(|text| !text.is_empty()), "{self}");
    }

    /// It worked: exit code 0, nothing on stderr, and one JSON object on stdout or nothing at all.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert_eq!(self.code, Some(0), "{self}");
        assert_eq!(self.stderr, "", "{self}");
        if self.stdout.is_empty() {
            return Value::Null;
        }
        self.json()
    }

    /// It failed: one error object on stdout.
    #[track_caller]
    pub fn refused(self, code: u32, words: &[&str]) -> Value {
        assert_eq!(self.code, Some(1), "{self}");
        assert_eq!(self.stderr, "", "{self}");
        let error = self.json();
        assert_eq!(error["code"], code, "{self}");
        assert!(error["cniVersion"].is_string() && error["msg"].is_string(), "{self}");
        let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
        let message = format!("{} {}", text("msg"), text("details"));
        words.iter().for_each(|word| assert!(message.contains(word), "\"{word}\" is not said: {self}"));
        assert!(!message.contains("panic"), "{self}");
        error
    }

    /// What it said on stderr, where that was asked for.
    #[track_caller]
    pub fn about(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(0), ""), "{self}");
        self.stderr
    }

    #[track_caller]
    fn json(&self) -> Value {
        let mut objects = serde_json::Deserializer::from_str(&self.stdout).into_iter::<Value>();
        let first =
            objects.next().and_then(Result::ok).unwrap_or_else(|| panic!("no JSON on stdout: {self}"));
        assert!(objects.next().is_none(), "more than one object on stdout: {self}");
        first
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, code, stdout, stderr } = self;
        write!(f, "{what}\nexit: {code:?}\nstdout: {stdout}\nstderr: {stderr}")
    }
}
