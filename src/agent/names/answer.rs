//! From the bytes of a question to the bytes of its answer, as far as they can be known here. Pure: hostile bytes in,
//! an answer, a question for others, or silence out (RFC 1035, RFC 6891, RFC 8482).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::{
    base::{
        Message, MessageBuilder, Name, StaticCompressor, ToName, Ttl,
        iana::{Class, Opcode, Rcode, Rtype},
        message_builder::{AdditionalBuilder, AnswerBuilder},
        name::ParsedName,
    },
    rdata::{A, Aaaa, Ptr, Srv},
};

use super::table::{Asker, Known};

/// How long an answer from here may be kept, in seconds: names change while containers run.
const TTL: Ttl = Ttl::from_secs(5);
/// The largest answer over UDP to who says nothing (RFC 1035, 4.2.1).
const PLAIN: usize = 512;
/// The largest answer over UDP to anybody, which fits every path (DNS flag day 2020).
pub const LARGEST_UDP: usize = 1232;
/// The largest message at all.
pub const LARGEST: usize = 65_535;
/// More records than that no question has beside it.
const MOST_EXTRAS: u16 = 16;

/// By which way a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is answered so.
    Reply(Vec<u8>),
    /// Others are asked.
    Forward(Question),
    /// Nothing is said.
    Silence,
}

/// A question for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The question section as it came: name, type, class.
    pub section: Vec<u8>,
    /// Its id.
    pub id: u16,
    /// The flags that it came with: recursion desired, checking disabled, authentic data.
    pub flags: (bool, bool, bool),
    /// How large an answer may be, and whether with signatures; `None` without EDNS.
    pub edns: Option<Edns>,
    /// The largest answer that the asker takes, in bytes.
    pub limit: usize,
    /// Who is asked; the host's resolvers where nobody is named.
    pub servers: Vec<IpAddr>,
}

/// What an asker says about itself (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edns {
    /// It wants signatures.
    pub dnssec: bool,
}

type Target = StaticCompressor<Vec<u8>>;

/// What was asked.
struct Asked<'a> {
    message: &'a Message<[u8]>,
    name: ParsedName<&'a [u8]>,
    kind: Rtype,
    text: String,
    edns: Option<Edns>,
    limit: usize,
    way: Way,
}

/// Answers the bytes of a question, for somebody who may ask.
#[must_use]
pub fn answer(bytes: &[u8], way: Way, asker: &Asker<'_>) -> Verdict {
    let Ok(message) = Message::from_slice(bytes) else { return Verdict::Silence };
    let header = message.header();
    if header.qr() {
        return Verdict::Silence;
    }
    if header.opcode() != Opcode::QUERY {
        return bare(message, Rcode::NOTIMP);
    }
    let Some(asked) = Asked::read(message, way) else { return bare(message, Rcode::FORMERR) };
    match asked.message.sole_question().map(|question| question.qclass()) {
        Ok(Class::IN | Class::ANY) => asked.answer(asker),
        _ => asked.reply(Rcode::REFUSED),
    }
}

/// The header alone: what else came is not to be repeated.
fn bare(message: &Message<[u8]>, rcode: Rcode) -> Verdict {
    let mut builder = MessageBuilder::from_target(Vec::with_capacity(12)).map(MessageBuilder::question);
    if let Ok(builder) = &mut builder {
        let header = builder.header_mut();
        header.set_id(message.header().id());
        header.set_qr(true);
        header.set_opcode(message.header().opcode());
        header.set_rd(message.header().rd());
        header.set_rcode(rcode);
    }
    builder.map_or(Verdict::Silence, |builder| Verdict::Reply(builder.finish()))
}

impl<'a> Asked<'a> {
    /// The one question, and what is said beside it; `None` where it is malformed.
    fn read(message: &'a Message<[u8]>, way: Way) -> Option<Self> {
        let counts = message.header_counts();
        if (counts.ancount(), counts.nscount()) != (0, 0) || counts.arcount() > MOST_EXTRAS {
            return None;
        }
        let question = message.sole_question().ok()?;
        let name = *question.qname();
        let opt = message.opt();
        if opt.is_none() && counts.arcount() > 0 && message.additional().ok()?.any(|record| record.is_err()) {
            return None;
        }
        let edns = opt.as_ref().map(|opt| Edns { dnssec: opt.dnssec_ok() });
        let size = opt.map_or(PLAIN, |opt| usize::from(opt.udp_payload_size()).clamp(PLAIN, LARGEST_UDP));
        let limit = if way == Way::Tcp { LARGEST } else { size };
        Some(Self { message, name, kind: question.qtype(), text: text_of(&name), edns, limit, way })
    }

    fn answer(&self, asker: &Asker<'_>) -> Verdict {
        match self.kind {
            Rtype::AXFR | Rtype::IXFR | Rtype::MAILA | Rtype::MAILB => return self.reply(Rcode::REFUSED),
            Rtype::PTR => {
                if let Some(address) = address_of(&self.text) {
                    return self.pointer(asker, address);
                }
            }
            Rtype::SRV => {
                if let Some(verdict) = self.service(asker) {
                    return verdict;
                }
            }
            _ => {}
        }
        match asker.look_up(&self.text) {
            Known::Addresses(addresses) => self.addresses(&addresses),
            known => self.unknown(known),
        }
    }

    /// No address of the wanted family is no data, and never a question for others: the name is known.
    fn addresses(&self, addresses: &[IpAddr]) -> Verdict {
        let wanted = |address: &&IpAddr| match self.kind {
            Rtype::A => address.is_ipv4(),
            Rtype::AAAA => address.is_ipv6(),
            Rtype::ANY => true,
            _ => false,
        };
        self.build(Rcode::NOERROR, |answer| {
            addresses.iter().filter(wanted).all(|address| push_address(answer, &self.name, *address))
        })
    }

    fn pointer(&self, asker: &Asker<'_>, address: IpAddr) -> Verdict {
        match asker.name_of(address).and_then(|name| Name::vec_from_str(&name).ok()) {
            Some(name) => self.build(Rcode::NOERROR, |answer| {
                answer.push((&self.name, Class::IN, TTL, Ptr::new(&name))).is_ok()
            }),
            None => self.unknown(asker.of_address(address)),
        }
    }

    /// `_80._tcp.web`: the port is a number, because nobody here knows services by name.
    fn service(&self, asker: &Asker<'_>) -> Option<Verdict> {
        let mut labels = self.text.splitn(3, '.');
        let port: u16 = labels.next()?.strip_prefix('_')?.parse().ok()?;
        labels.next().filter(|protocol| ["_tcp", "_udp", "_sctp"].contains(protocol))?;
        let name = labels.next()?;
        let Known::Addresses(addresses) = asker.look_up(name) else { return None };
        let target = Name::vec_from_str(name).ok()?;
        let mut builder = self.begin(Rcode::NOERROR)?;
        builder.push((&self.name, Class::IN, TTL, Srv::new(0, 0, port, &target))).ok()?;
        let mut more = builder.additional();
        let push = |more: &mut AdditionalBuilder<Target>, address: &IpAddr| match *address {
            IpAddr::V4(v4) => more.push((&target, Class::IN, TTL, A::new(v4))),
            IpAddr::V6(v6) => more.push((&target, Class::IN, TTL, Aaaa::new(v6))),
        };
        // What has no room is asked for by itself.
        let _ = addresses.iter().try_for_each(|address| push(&mut more, address));
        Some(self.finish(more))
    }

    fn unknown(&self, known: Known) -> Verdict {
        match known {
            Known::Elsewhere(servers) => Verdict::Forward(self.question(servers)),
            Known::Nobody | Known::Addresses(_) => self.reply(Rcode::NXDOMAIN),
        }
    }

    fn question(&self, servers: Vec<IpAddr>) -> Question {
        let header = self.message.header();
        let mut section = Vec::with_capacity(64);
        // Written anew: no compression, nothing beside it.
        let _ = self.name.compose(&mut section);
        section.extend_from_slice(&self.kind.to_int().to_be_bytes());
        section.extend_from_slice(&Class::IN.to_int().to_be_bytes());
        Question {
            section,
            id: header.id(),
            flags: (header.rd(), header.cd(), header.ad()),
            edns: self.edns,
            limit: self.limit,
            servers,
        }
    }

    fn reply(&self, rcode: Rcode) -> Verdict {
        self.build(rcode, |_| true)
    }

    /// An answer with what `fill` puts into it. What has no room makes it a truncated one, and then it is asked for
    /// again over TCP.
    fn build(&self, rcode: Rcode, fill: impl FnOnce(&mut AnswerBuilder<Target>) -> bool) -> Verdict {
        let Some(mut builder) = self.begin(rcode) else { return Verdict::Silence };
        if !fill(&mut builder) {
            builder.header_mut().set_tc(self.way == Way::Udp);
        }
        self.finish(builder.additional())
    }

    fn begin(&self, rcode: Rcode) -> Option<AnswerBuilder<Target>> {
        let mut builder =
            MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(PLAIN))).ok()?;
        // Room for what is said about EDNS.
        builder.set_push_limit(self.limit - if self.edns.is_some() { 11 } else { 0 });
        let mut builder = builder.start_answer(self.message, rcode).ok()?;
        let header = builder.header_mut();
        header.set_ra(true);
        header.set_aa(rcode != Rcode::REFUSED);
        header.set_cd(self.message.header().cd());
        Some(builder)
    }

    fn finish(&self, mut builder: AdditionalBuilder<Target>) -> Verdict {
        builder.clear_push_limit();
        if self.edns.is_some() {
            let _ = builder.opt(|opt| {
                opt.set_udp_payload_size(LARGEST_UDP as u16);
                Ok(())
            });
        }
        Verdict::Reply(builder.finish().into_target())
    }
}

fn push_address(answer: &mut AnswerBuilder<Target>, name: &ParsedName<&[u8]>, address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => answer.push((name, Class::IN, TTL, A::new(v4))).is_ok(),
        IpAddr::V6(v6) => answer.push((name, Class::IN, TTL, Aaaa::new(v6))).is_ok(),
    }
}

/// The name in small letters, without a dot at its end. A byte that no name of ours has stands as `*`, which none has
/// either.
fn text_of(name: &ParsedName<&[u8]>) -> String {
    let mut text = String::with_capacity(64);
    for label in name.iter().filter(|label| !label.is_root()) {
        if !text.is_empty() {
            text.push('.');
        }
        let plain = |byte: &u8| byte.is_ascii_graphic() && *byte != b'.';
        text.extend(
            label.as_ref().iter().map(
                |byte| {
                    if plain(byte) { char::from(byte.to_ascii_lowercase()) } else { '*' }
                },
            ),
        );
    }
    text
}

/// The address that a name in `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035, 3.5; RFC 3596, 2.5).
fn address_of(name: &str) -> Option<IpAddr> {
    if let Some(octets) = name.strip_suffix(".in-addr.arpa") {
        let numbers: Vec<u8> = octets.split('.').map_while(|octet| octet.parse().ok()).collect();
        let [d, c, b, a] = numbers[..] else { return None };
        return (octets.split('.').count() == 4).then_some(Ipv4Addr::new(a, b, c, d).into());
    }
    let nibbles = name.strip_suffix(".ip6.arpa")?;
    let digit = |nibble: &str| u128::from_str_radix(nibble, 16).ok().filter(|_| nibble.len() == 1);
    let digits: Vec<u128> = nibbles.split('.').map_while(digit).collect();
    if digits.len() != 32 || nibbles.split('.').count() != 32 {
        return None;
    }
    let number = digits.iter().rev().fold(0, |number, digit| number << 4 | digit);
    Some(Ipv6Addr::from(number).into())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use domain::rdata::AllRecordData;
    use proptest::prelude::*;
    use rnetkit_drivers::Id;

    use super::*;
    use crate::agent::names::table::{Table, tests as tables};

    fn query(name: &str, kind: Rtype) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(4711);
        builder.header_mut().set_rd(true);
        let mut builder = builder.question();
        builder.push((Name::vec_from_str(name).unwrap(), kind)).unwrap();
        builder.finish()
    }

    fn ask(table: &Table, bytes: &[u8], way: Way) -> Verdict {
        answer(bytes, way, &table.asker(&Id([1; 32]), [10, 0, 1, 2].into()).unwrap())
    }

    /// The return code, and the records of the answer as text.
    fn shown(verdict: &Verdict) -> (Rcode, Vec<String>) {
        let Verdict::Reply(bytes) = verdict else { panic!("{verdict:?}") };
        let message = Message::from_octets(&bytes[..]).unwrap();
        assert!(message.header().qr() && message.header().ra());
        let records = message.answer().unwrap().limit_to::<AllRecordData<_, _>>();
        let list = records.map(|record| record.unwrap().data().to_string()).collect();
        (message.header().rcode(), list)
    }

    fn at(name: &str, kind: Rtype) -> (Rcode, Vec<String>) {
        shown(&ask(&tables::table(), &query(name, kind), Way::Udp))
    }

    fn yes(texts: &[&str]) -> (Rcode, Vec<String>) {
        (Rcode::NOERROR, texts.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn addresses_of_both_families_whatever_the_case() {
        assert_eq!(at("web", Rtype::A), yes(&["10.0.1.2"]));
        assert_eq!(at("WeB.", Rtype::AAAA), yes(&["fd00:1::2"]));
        assert_eq!(at("db1", Rtype::ANY), yes(&["10.0.1.3", "fd00:1::3"]));
    }

    #[test]
    fn a_name_without_such_data_is_no_data_and_not_unknown() {
        for kind in [Rtype::MX, Rtype::TXT, Rtype::HTTPS, Rtype::SOA, Rtype::CNAME] {
            assert_eq!(at("web", kind), yes(&[]), "{kind}");
        }
    }

    #[test]
    fn addresses_have_names() {
        assert_eq!(at("2.1.0.10.in-addr.arpa", Rtype::PTR), yes(&["web.blue."]));
        assert_eq!(at("1.1.0.10.in-addr.arpa", Rtype::PTR), yes(&["host.rnet.internal."]));
        let six = "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(at(six, Rtype::PTR), yes(&["db1.blue."]));
        assert_eq!(at("99.1.0.10.in-addr.arpa", Rtype::PTR).0, Rcode::NXDOMAIN);
        let foreign = ask(&tables::table(), &query("8.8.8.8.in-addr.arpa", Rtype::PTR), Way::Udp);
        assert!(matches!(foreign, Verdict::Forward(_)));
    }

    #[test]
    fn a_service_has_a_port_and_addresses() {
        let verdict = ask(&tables::table(), &query("_80._tcp.web", Rtype::SRV), Way::Udp);
        assert_eq!(shown(&verdict), yes(&["0 0 80 web"]));
        let Verdict::Reply(bytes) = verdict else { panic!() };
        assert_eq!(Message::from_octets(bytes).unwrap().header_counts().arcount(), 2);
    }

    #[test]
    fn what_nobody_here_is_called_is_asked_elsewhere_as_it_came() {
        let bytes = query("Example.ORG", Rtype::A);
        let Verdict::Forward(question) = ask(&tables::table(), &bytes, Way::Udp) else { panic!() };
        assert_eq!(question.section, bytes[12..]);
        assert_eq!((question.id, question.limit, question.edns), (4711, 512, None));
    }

    #[test]
    fn from_an_internal_network_alone_nobody_else_is_asked() {
        let table = tables::table();
        let asker = table.asker(&Id([3; 32]), [10, 0, 3, 6].into()).unwrap();
        let verdict = answer(&query("secret.example", Rtype::A), Way::Udp, &asker);
        assert_eq!(shown(&verdict), (Rcode::NXDOMAIN, Vec::new()));
    }

    #[test]
    fn what_is_no_question_gets_no_answer_or_a_short_one() {
        let table = tables::table();
        let good = query("web", Rtype::A);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            ask(&table, &bytes, Way::Udp)
        };
        let code = |verdict: Verdict| shown_code(&verdict);
        assert_eq!(ask(&table, &good[..11], Way::Udp), Verdict::Silence);
        assert_eq!(with(2, 0x81), Verdict::Silence, "an answer");
        assert_eq!(code(with(2, 0x11)), Rcode::NOTIMP, "another operation");
        assert_eq!(code(with(5, 2)), Rcode::FORMERR, "two questions");
        assert_eq!(code(with(5, 0)), Rcode::FORMERR, "no question");
        assert_eq!(code(with(7, 1)), Rcode::FORMERR, "an answer in a question");
        assert_eq!(code(with(12, 0xc0)), Rcode::FORMERR, "a pointer to nowhere");
        assert_eq!(code(with(good.len() - 1, 3)), Rcode::REFUSED, "CHAOS");
        assert_eq!(code(ask(&table, &query("web", Rtype::AXFR), Way::Tcp)), Rcode::REFUSED);
    }

    fn shown_code(verdict: &Verdict) -> Rcode {
        let Verdict::Reply(bytes) = verdict else { panic!("{verdict:?}") };
        Message::from_octets(&bytes[..]).unwrap().header().rcode()
    }

    #[test]
    fn what_has_no_room_over_udp_is_whole_over_tcp() {
        let mut table = tables::table();
        for last in 10..100 {
            let record = tables::endpoint(1, last, &format!("c{last}"), &["many"]);
            table.set_endpoint(&Id([1; 32]), &record);
        }
        let bytes = query("many", Rtype::A);
        let Verdict::Reply(short) = ask(&table, &bytes, Way::Udp) else { panic!() };
        let message = Message::from_octets(&short[..]).unwrap();
        assert!(message.header().tc() && short.len() <= 512 && message.header_counts().ancount() > 20);
        let (_, all) = shown(&ask(&table, &bytes, Way::Tcp));
        assert_eq!(all.len(), 90);
    }

    #[test]
    fn who_says_edns_hears_edns() {
        let mut builder = MessageBuilder::new_vec().question();
        builder.push((Name::vec_from_str("web").unwrap(), Rtype::A)).unwrap();
        let mut builder = builder.additional();
        builder
            .opt(|opt| {
                opt.set_udp_payload_size(4096);
                Ok(())
            })
            .unwrap();
        let Verdict::Reply(bytes) = ask(&tables::table(), &builder.finish(), Way::Udp) else { panic!() };
        let opt = Message::from_octets(&bytes[..]).unwrap().opt().unwrap();
        assert_eq!(opt.udp_payload_size(), 1232);
    }

    #[test]
    fn reverse_names_are_read_strictly() {
        for name in [
            "1.2.3.in-addr.arpa",
            "1.2.3.4.5.in-addr.arpa",
            "1.2.3.x.in-addr.arpa",
            "1.ip6.arpa",
            "in-addr.arpa",
        ] {
            assert_eq!(address_of(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_shortly_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Verdict::Reply(reply) = ask(&tables::table(), &bytes, Way::Udp) {
                prop_assert!(reply.len() <= LARGEST_UDP && reply[..2] == bytes[..2]);
            }
        }

        #[test]
        fn a_question_with_any_byte_changed_does_no_harm(at in 0usize..40, byte in any::<u8>(), cut in 0usize..40) {
            let mut bytes = query("web.blue", Rtype::A);
            let index = at % bytes.len();
            bytes[index] = byte;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            let _ = ask(&tables::table(), &bytes, Way::Udp);
        }

        #[test]
        fn labels_of_any_bytes_are_names_of_nobody(label in proptest::collection::vec(any::<u8>(), 1..63)) {
            prop_assume!(!label.iter().all(|byte| byte.is_ascii_alphanumeric()));
            let mut bytes = query("x", Rtype::A);
            let rest = bytes.split_off(12);
            bytes.push(label.len() as u8);
            bytes.extend(&label);
            bytes.extend(&rest[2..]);
            let forwarded = matches!(ask(&tables::table(), &bytes, Way::Udp), Verdict::Forward(_));
            prop_assert!(forwarded || label == b"host-gateway");
        }
    }

    #[test]
    fn thousands_of_labels_cost_nothing() {
        let mut bytes = query("x", Rtype::A);
        bytes[10..12].copy_from_slice(&u16::MAX.to_be_bytes());
        while bytes.len() < LARGEST - 16 {
            let pointer = 0xc000 | ((bytes.len() - 2).min(0x3ff0) as u16);
            bytes.extend_from_slice(&[1, b'a']);
            bytes.extend_from_slice(&pointer.to_be_bytes());
        }
        assert_eq!(shown_code(&ask(&tables::table(), &bytes, Way::Tcp)), Rcode::FORMERR);
    }
}
