//! Answers of others, kept as long as they say. Pure: the time is given.

use std::{
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use super::answer::Edns;

/// No more answers are kept.
const MOST: usize = 1000;
/// No longer ones are kept, in bytes.
const LONGEST: usize = 4096;
/// No answer is kept longer, and none that says "no" longer than the second, in seconds.
const MOST_SECONDS: u32 = 3600;
const MOST_SECONDS_NO: u32 = 30;
/// An answer has no more records.
const MOST_RECORDS: usize = 4096;
/// `OPT` (RFC 6891), whose time to live is none; `SOA` (RFC 2308).
const OPT: u16 = 41;
const SOA: u16 = 6;

/// What answers have in common that may stand for each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The question in small letters.
    pub section: Vec<u8>,
    /// As it was asked.
    pub edns: Option<Edns>,
    /// Whether checking was to be left out.
    pub unchecked: bool,
    /// Who was asked; nobody for the host's resolvers.
    pub servers: Vec<std::net::IpAddr>,
}

#[derive(Debug)]
struct Kept {
    message: Rc<Vec<u8>>,
    times: Vec<u16>,
    since: Instant,
    until: Instant,
}

/// The answers.
#[derive(Debug, Default)]
pub struct Cache(HashMap<Key, Kept>);

impl Cache {
    /// The answer, its times to live less what has passed of them.
    pub fn get(&self, key: &Key, now: Instant) -> Option<Vec<u8>> {
        let kept = self.0.get(key).filter(|kept| now < kept.until)?;
        let age = u32::try_from(now.duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut message = kept.message.to_vec();
        for at in &kept.times {
            let at = usize::from(*at);
            let left = number(&message, at).saturating_sub(age);
            message[at..at + 4].copy_from_slice(&left.to_be_bytes());
        }
        Some(message)
    }

    /// Keeps an answer, if it says how long.
    pub fn keep(&mut self, key: Key, message: &Rc<Vec<u8>>, now: Instant) {
        let Some(records) = records(message).filter(|_| message.len() <= LONGEST) else { return };
        let Some(seconds) = lifetime(message, &records) else { return };
        if self.0.len() >= MOST {
            self.make_room(now);
        }
        let times = records.iter().filter(|record| record.kind != OPT).map(|record| record.time as u16);
        let until = now + Duration::from_secs(u64::from(seconds));
        self.0.insert(key, Kept { message: Rc::clone(message), times: times.collect(), since: now, until });
    }

    /// What is over goes; where nothing is, what is over first.
    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, kept| now < kept.until);
        if self.0.len() >= MOST
            && let Some(key) = self.0.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone())
        {
            self.0.remove(&key);
        }
    }

    /// Forgets everything: others are asked from now on.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// How many answers are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A record of an answer: its type, where its time to live stands, and where its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    kind: u16,
    time: usize,
    data: usize,
    end: usize,
    authority: bool,
}

/// The records after the question, or nothing where the message is malformed. Names are stepped over, and so cost what
/// they are long.
#[must_use]
pub fn records(message: &[u8]) -> Option<Vec<At>> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?])));
    let (answers, authority, more) = (count(6)?, count(8)?, count(10)?);
    if answers + authority + more > MOST_RECORDS {
        return None;
    }
    let mut at = question_end(message)?;
    let mut list = Vec::new();
    for index in 0..answers + authority + more {
        let name = name_end(message, at)?;
        let (kind, length) = (count(name)?, count(name + 8)?);
        let (data, end) = (name + 10, name + 10 + length);
        if end > message.len() {
            return None;
        }
        let authority = (answers..answers + authority).contains(&index);
        list.push(At { kind: kind as u16, time: name + 4, data, end, authority });
        at = end;
    }
    Some(list)
}

/// Where the one question ends.
#[must_use]
pub fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let end = name_end(message, 12)? + 4;
    (end <= message.len()).then_some(end)
}

fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}

fn number(message: &[u8], at: usize) -> u32 {
    message.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// How long the whole answer may be kept: as long as its shortest record; one that says "no" as long as its zone says
/// (RFC 2308, section 5). Failures are not kept, and nothing that says no time.
fn lifetime(message: &[u8], records: &[At]) -> Option<u32> {
    let (rcode, answers) = (message.get(3)? & 15, message.get(6..8)? != [0, 0]);
    let truncated = message.get(2)? & 2 != 0;
    if truncated || rcode != 0 && rcode != 3 {
        return None;
    }
    let shortest =
        || records.iter().filter(|record| record.kind != OPT).map(|at| number(message, at.time)).min();
    let seconds = if answers && rcode == 0 {
        shortest()?.min(MOST_SECONDS)
    } else {
        let zone = records.iter().find(|at| at.authority && at.kind == SOA && at.end - at.data >= 22)?;
        number(message, zone.end - 4).min(shortest()?).min(MOST_SECONDS_NO)
    };
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use domain::{
        base::{
            MessageBuilder, Name, Ttl,
            iana::{Class, Rcode, Rtype},
        },
        rdata::{A, Soa},
    };
    use proptest::prelude::*;

    use super::*;

    fn answer(ttls: &[u32]) -> Rc<Vec<u8>> {
        let name: Name<Vec<u8>> = Name::vec_from_str("x.example").unwrap();
        let mut builder = MessageBuilder::new_vec().question();
        builder.push((&name, Rtype::A)).unwrap();
        let mut builder = builder.answer();
        for ttl in ttls {
            builder.push((&name, Class::IN, Ttl::from_secs(*ttl), A::from_octets(192, 0, 2, 9))).unwrap();
        }
        Rc::new(builder.finish())
    }

    fn no(minimum: u32) -> Rc<Vec<u8>> {
        let name: Name<Vec<u8>> = Name::vec_from_str("example").unwrap();
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_rcode(Rcode::NXDOMAIN);
        let mut builder = builder.question();
        builder.push((&name, Rtype::A)).unwrap();
        let mut builder = builder.authority();
        let ttl = Ttl::from_secs;
        let soa = Soa::new(&name, &name, 1.into(), ttl(1), ttl(1), ttl(1), ttl(minimum));
        builder.push((&name, Class::IN, ttl(3600), soa)).unwrap();
        Rc::new(builder.finish())
    }

    fn key(n: u32) -> Key {
        Key { section: n.to_be_bytes().to_vec(), edns: None, unchecked: false, servers: Vec::new() }
    }

    fn kept(message: &Rc<Vec<u8>>, seconds: u64) -> Option<Vec<u32>> {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.keep(key(1), message, now);
        let found = cache.get(&key(1), now + Duration::from_secs(seconds))?;
        Some(records(&found).unwrap().iter().map(|at| number(&found, at.time)).collect())
    }

    #[test]
    fn an_answer_is_kept_as_long_as_its_shortest_record_and_grows_older() {
        assert_eq!(kept(&answer(&[60, 30]), 0), Some(vec![60, 30]));
        assert_eq!(kept(&answer(&[60, 30]), 29), Some(vec![31, 1]));
        assert_eq!(kept(&answer(&[60, 30]), 30), None);
        assert_eq!(kept(&answer(&[0]), 0), None);
        assert_eq!(kept(&answer(&[]), 0), None, "no data, and no word of how long");
    }

    #[test]
    fn a_no_is_kept_as_its_zone_says_and_not_for_long() {
        assert_eq!(kept(&no(10), 9), Some(vec![3591]));
        assert_eq!(kept(&no(10), 10), None);
        assert_eq!(kept(&no(3000), 30), None);
    }

    #[test]
    fn failures_and_what_is_cut_short_are_not_kept() {
        let mut failed = answer(&[60]).to_vec();
        failed[3] |= 2;
        assert_eq!(kept(&Rc::new(failed), 0), None);
        let mut cut = answer(&[60]).to_vec();
        cut[2] |= 2;
        assert_eq!(kept(&Rc::new(cut), 0), None);
    }

    #[test]
    fn the_cache_has_an_end() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        (0..3000).for_each(|n| cache.keep(key(n), &answer(&[60 + n % 7]), now));
        assert_eq!(cache.len(), MOST);
    }

    proptest! {
        #[test]
        fn any_bytes_are_records_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            if bytes.len() > 12 {
                bytes[4..12].copy_from_slice(&[0, 1, 0, 2, 0, 1, 0, 1]);
            }
            if let Some(list) = records(&bytes) {
                prop_assert!(list.iter().all(|at| at.end <= bytes.len() && at.time + 4 <= bytes.len()));
            }
            let mut cache = Cache::default();
            let now = Instant::now();
            cache.keep(key(1), &Rc::new(bytes), now);
            let _ = cache.get(&key(1), now + Duration::from_secs(1));
        }
    }
}
