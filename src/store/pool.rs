//! Which numbers of a range are taken: addresses of a pool, ports of an address. An index of the records, in one
//! small file of fixed size each: rebuilt from the records when in doubt.

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use crate::{error::Error, ipam::bitmap};

/// How long a freed number is not given out while others are free, in seconds. It rests for one to two of these.
const QUARANTINE: u64 = 30;
/// Bytes of the time at the file's beginning.
const HEAD: usize = 8;

/// A file of three bitmaps: taken, freed lately, and freed before that; headed by the time when "lately" began.
pub struct Numbers {
    file: Option<File>,
    bytes: Vec<u8>,
    /// The part of `bytes` that the file does not have yet.
    changed: Range<usize>,
    length: usize,
    /// The file is not there, or not of its length: what is taken must be looked up in the records.
    doubtful: bool,
}

impl Numbers {
    /// Opens the file for a range of `size` numbers. The caller holds the lock that guards it.
    pub(super) fn open(path: &Path, size: u32, now: u64) -> Result<Self, Error> {
        let fail = |error: io::Error| Error::store(path, error);
        let length = size.div_ceil(8) as usize;
        let mut bytes = vec![0; HEAD + 3 * length];
        let open = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = match open {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            file => Some(file.map_err(fail)?),
        };
        let mut read = 0;
        while let Some(file) = file.as_ref().filter(|_| read < bytes.len()) {
            match file.read_at(&mut bytes[read..], read as u64).map_err(fail)? {
                0 => break,
                some => read += some,
            }
        }
        let whole = file
            .as_ref()
            .is_some_and(|file| file.metadata().is_ok_and(|data| data.len() == bytes.len() as u64));
        if !whole {
            bytes.fill(0);
        }
        let mut numbers = Self { file, bytes, changed: 0..0, length, doubtful: !whole };
        numbers.turn(now);
        Ok(numbers)
    }

    fn part(&self, number: usize) -> &[u8] {
        &self.bytes[HEAD + number * self.length..HEAD + (number + 1) * self.length]
    }

    /// Lets what was freed long enough ago be given out again.
    fn turn(&mut self, now: u64) {
        let began = u64::from_le_bytes(self.bytes[..HEAD].try_into().unwrap_or([0; HEAD]));
        if now >= began && now - began < QUARANTINE {
            return;
        }
        let lately = HEAD + self.length..HEAD + 2 * self.length;
        let before = HEAD + 2 * self.length;
        if now >= began && now - began < 2 * QUARANTINE {
            self.bytes.copy_within(lately.clone(), before);
        } else {
            self.bytes[before..].fill(0);
        }
        self.bytes[lately].fill(0);
        self.bytes[..HEAD].copy_from_slice(&now.to_le_bytes());
        self.changed = 0..self.bytes.len();
    }

    fn put(&mut self, part: usize, number: u32, inside: bool) {
        self.put_all(part, number..number + 1, inside);
    }

    fn put_all(&mut self, part: usize, range: Range<u32>, inside: bool) {
        if range.is_empty() {
            return;
        }
        let start = HEAD + part * self.length;
        bitmap::put_all(&mut self.bytes[start..start + self.length], range.clone(), inside);
        let byte = |number: u32| (start + number as usize / 8).min(start + self.length - 1);
        let (first, end) = (byte(range.start), byte(range.end - 1) + 1);
        let before = if self.changed.is_empty() { first..end } else { self.changed.clone() };
        self.changed = before.start.min(first)..before.end.max(end);
    }

    /// The lowest free number that is usable: one that has rested if there is one, else any.
    #[must_use]
    pub fn lowest_free(&self, range: Range<u32>, usable: impl Fn(u32) -> bool) -> Option<u32> {
        let all = [self.part(0), self.part(1), self.part(2)];
        let search = |sets: &[&[u8]]| {
            let mut from = range.start;
            while let Some(number) = bitmap::lowest_free(sets, from..range.end) {
                if usable(number) {
                    return Some(number);
                }
                from = number + 1;
            }
            None
        };
        search(&all).or_else(|| search(&all[..1]))
    }

    /// Whether the records must say what is taken.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether the number is taken.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        bitmap::has(self.part(0), number)
    }

    /// Whether any number of the range is taken.
    #[must_use]
    pub fn has_any(&self, range: Range<u32>) -> bool {
        bitmap::has_any(self.part(0), range)
    }

    /// Takes all numbers of the range.
    pub fn take_all(&mut self, range: Range<u32>) {
        self.put_all(0, range, true);
    }

    /// Gives all numbers of the range back.
    pub fn free_all(&mut self, range: Range<u32>) {
        self.put_all(0, range.clone(), false);
        self.put_all(1, range, true);
    }

    /// Gives numbers back that nobody used: they need not rest.
    pub fn put_back_all(&mut self, range: Range<u32>) {
        self.put_all(0, range, false);
    }

    /// Takes a number.
    pub fn take(&mut self, number: u32) {
        self.put(0, number, true);
    }

    /// Gives a number back.
    pub fn free(&mut self, number: u32) {
        self.put(0, number, false);
        self.put(1, number, true);
    }

    /// Gives a number back that nobody used: it need not rest.
    pub fn put_back(&mut self, number: u32) {
        self.put(0, number, false);
    }

    /// Takes these numbers and no others.
    pub fn rebuild(&mut self, numbers: impl Iterator<Item = u32>) {
        let length = self.length;
        self.bytes[HEAD..HEAD + length].fill(0);
        self.changed = 0..self.bytes.len();
        numbers.for_each(|number| self.take(number));
    }

    /// Writes the file, as far as anything changed; one in which nothing is taken or rests need not be there.
    pub(super) fn save(&self, path: &Path) -> Result<(), Error> {
        let fail = |error: io::Error| Error::store(path, error);
        if self.bytes[HEAD..].iter().all(|byte| *byte == 0) {
            return if self.file.is_some() { super::file::remove(path) } else { Ok(()) };
        }
        if self.changed.is_empty() && !self.doubtful {
            return Ok(());
        }
        match &self.file {
            Some(file) if self.doubtful => {
                let length = self.bytes.len() as u64;
                file.set_len(length).and_then(|()| file.write_all_at(&self.bytes, 0)).map_err(fail)
            }
            Some(file) => {
                let start = self.changed.start as u64;
                file.write_all_at(&self.bytes[self.changed.clone()], start).map_err(fail)
            }
            None => {
                let mut options = fs::OpenOptions::new();
                options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
                options.open(path).and_then(|file| file.write_all_at(&self.bytes, 0)).map_err(fail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, now: u64) -> Numbers {
        Numbers::open(path, 8, now).unwrap()
    }

    #[test]
    fn a_freed_number_rests_while_others_are_free() {
        let path = std::env::temp_dir().join(format!("rnet-numbers-{}", std::process::id()));
        let mut numbers = open(&path, 1000);
        numbers.take(0);
        numbers.take(1);
        numbers.free(0);
        assert_eq!(numbers.lowest_free(0..4, |_| true), Some(2));
        assert_eq!(numbers.lowest_free(0..2, |_| true), Some(0), "it is given out where no other is free");
        numbers.save(&path).unwrap();
        assert_eq!(open(&path, 1031).lowest_free(0..4, |_| true), Some(2));
        assert_eq!(open(&path, 1061).lowest_free(0..4, |_| true), Some(0));
        fs::remove_file(path).unwrap();
    }
}
