//! Plugins that another plugin calls (SPEC 1.1, section "Plugin Delegation"). A delegate that is this very file is
//! called in this process.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rnetkit_drivers::Name;
use serde_json::Value;

use super::{
    Request,
    call::Verb,
    failure::{Code, Failure, Reason},
    json,
    result::Outcome,
};
use crate::error::shown;

/// A delegate that was found.
pub(super) enum Delegate {
    /// This file, by that name.
    Own,
    /// Another program.
    Program(PathBuf),
}

/// Finds a plugin by its type, which is a name and no path (CVE-2021-20206), in the directories of `CNI_PATH`.
pub(super) fn find(request: &Request, kind: &str) -> Result<Delegate, Failure> {
    Name::parse("plugin type", kind).map_err(|error| Failure::config(error.to_string()))?;
    let there = |folder: &PathBuf| {
        let path = folder.join(kind);
        path.is_file().then_some(path)
    };
    let path = request.call.path.iter().find_map(there).ok_or_else(|| {
        let folders: Vec<String> = request.call.path.iter().map(|path| path.display().to_string()).collect();
        Failure::config(format!("plugin {kind} is not in {}", shown(&folders.join(":"))))
    })?;
    Ok(if is_this_program(&path) { Delegate::Own } else { Delegate::Program(path) })
}

fn is_this_program(path: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino()));
    matches!((identity(path), identity(Path::new("/proc/self/exe"))), (Ok(a), Ok(b)) if a == b)
}

/// Runs it for a verb, with the same environment and the same configuration otherwise.
pub(super) fn run(program: &Path, verb: Verb, request: &Request) -> Result<Option<Outcome>, Failure> {
    let failed = |error: std::io::Error| Failure::new(Code::Io, format!("{}: {error}", program.display()));
    let mut command = Command::new(program);
    command.env("CNI_COMMAND", verb.name()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // One that reads nothing has its reasons, and says them.
        let _ = input.write_all(request.config.text().as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    let said: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    if output.status.success() {
        return said.map(|value| Outcome::read(&value, request.config.version)).transpose();
    }
    Err(said.as_ref().and_then(|said| failure(program, said)).unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&output.stderr);
        Failure::new(
            Code::Io,
            format!("{} failed ({}): {}", program.display(), output.status, shown(text.trim())),
        )
    }))
}

fn failure(program: &Path, said: &Value) -> Option<Failure> {
    let map = said.as_object()?;
    let text = |key| json::get(map, key).and_then(Value::as_str).unwrap_or_default();
    let code = json::get(map, "code").and_then(Value::as_u64).filter(|code| *code > 0)?;
    let message = format!("{}: {}", program.display(), shown(text("msg")));
    Some(Failure {
        reason: Reason::Delegate(code),
        ..Failure::new(Code::Io, message).details(shown(text("details")))
    })
}
