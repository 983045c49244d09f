//! Puts rnet where runtimes look for plugins, under each name that it answers to. What is there and is not rnet it
//! leaves alone.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::error::Error;

/// What every rnet has in it, and nothing else: so an older one is known again, and replaced.
#[used]
static MARK: [u8; 40] = *b"rnet:58c1a6e3:one-file-many-CNI-plugins\0";

/// Links the program into a directory by each name, or copies it where that is another file system. Either all names
/// are possible, or nothing is changed. Returns the paths.
///
/// # Errors
/// When something else has one of the names, unless `force`; or when the directory cannot be written.
pub fn install(program: &Path, folder: &Path, names: &[&str], force: bool) -> Result<Vec<PathBuf>, Error> {
    let paths: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
    for path in paths.iter().filter(|_| !force) {
        if !is_free(program, path)? {
            let what = format!("{} is there already, and is not rnet; --force replaces it", path.display());
            return Err(Error::Unsupported { what });
        }
    }
    fs::create_dir_all(folder).map_err(|error| Error::store(folder, error))?;
    for path in &paths {
        // The other names are links to the first, so that each of them knows the others as itself.
        place(&[program, &paths[0]], path).map_err(|error| Error::store(path, error))?;
    }
    Ok(paths)
}

/// Whether nothing is there, or some rnet.
fn is_free(program: &Path, path: &Path) -> Result<bool, Error> {
    let failed = |error| Error::store(path, error);
    let there = match fs::metadata(path) {
        Ok(there) => there,
        // A link that leads nowhere is somebody's too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(fs::symlink_metadata(path).is_err());
        }
        Err(error) => return Err(failed(error)),
    };
    let own = fs::metadata(program).map_err(failed)?;
    if (there.dev(), there.ino()) == (own.dev(), own.ino()) {
        return Ok(true);
    }
    if !there.is_file() {
        return Ok(false);
    }
    let bytes = fs::read(path).map_err(failed)?;
    Ok(bytes.windows(MARK.len()).any(|window| window == MARK))
}

/// In one step, so that a runtime finds the old plugin or the new one, and never a part. A link to the first of the
/// files that can be linked to, or else a copy.
fn place(files: &[&Path; 2], path: &Path) -> io::Result<()> {
    let identity = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    if identity(path).is_some() && identity(path) == identity(files[0]) {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".rnet-{}", std::process::id()));
    let fresh = path.with_file_name(name);
    let linked = files.iter().any(|file| *file != path && fs::hard_link(file, &fresh).is_ok());
    if !linked {
        fs::copy(files[0], &fresh)?;
    }
    // Where both are one file already, rename does nothing, and leaves the second name.
    let placed = fs::rename(&fresh, path);
    let _ = fs::remove_file(&fresh);
    placed
}
