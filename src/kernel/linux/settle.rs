//! Steps that are done as far as they are not done yet, and what a deletion and a closed port leave to do.

use std::{collections::HashSet, net::IpAddr, os::fd::AsRawFd as _};

use netlink_packet_core::NLM_F_ACK;
use netlink_packet_route::RouteNetlinkMessage;
use rnetkit_drivers::{Publication, Resource};

use super::super::{
    Failed, Netns, Refusal, address,
    behind::{self, Deleter},
    conntrack::{self, Change},
    firewall::{self, Limits, Nft, Rejected},
    link,
    netlink::{self, Requests},
};
use crate::plan::{Plan, Step};

use super::{Deletion, Linux, run::Run};

impl Linux {
    /// Sends a request that deletes the link with that index, and returns once it is gone.
    pub(in crate::kernel) fn delete(
        &mut self,
        message: &RouteNetlinkMessage,
        index: u32,
    ) -> Result<(), Refusal> {
        match self.deletion {
            Deletion::Wait => self.delete_and_wait(message),
            Deletion::Behind => {
                let held = self.nft.as_ref().map(|nft| nft.channel().socket().as_raw_fd());
                match Deleter::open().and_then(|deleter| deleter.delete(message, index, held)) {
                    // No file or process to spare: then the wait is this one's to sit out.
                    Err(refusal) if behind::is_short(&refusal) => self.delete_and_wait(message),
                    done => {
                        self.nft.iter_mut().for_each(Nft::is_held_by_another);
                        done
                    }
                }
            }
        }
    }

    fn delete_and_wait(&mut self, message: &RouteNetlinkMessage) -> Result<(), Refusal> {
        let mut requests = Requests::default();
        requests.push(netlink::request(message.clone()), NLM_F_ACK);
        self.host()?.run(requests, |_| ()).map_err(|(_, refusal)| refusal)
    }

    /// The links of a network that goes as a whole go in one message.
    fn delete_group(&mut self, steps: &[Step]) -> Option<(usize, Result<(), Refusal>)> {
        let mut group = None;
        let mut links = Vec::new();
        let mut whole = None;
        for step in steps {
            let Step::Remove(
                Resource::Bridge { name, group: of, .. }
                | Resource::Veth { name, group: of, .. }
                | Resource::Ifb { name, group: of, .. },
            ) = step
            else {
                break;
            };
            if group.is_some_and(|group| group != *of) {
                break;
            }
            group = Some(*of);
            links.push(name);
            if matches!(step, Step::Remove(Resource::Bridge { .. })) {
                whole = Some(links.len());
            }
        }
        let count = whole.filter(|count| *count > 1)?;
        let bridge = links[count - 1];
        let result = self.host().and_then(|host| link::find(host, bridge)).and_then(|found| match found {
            Some(found) if Some(found.group) == group => {
                self.delete(&link::delete_group(found.group), found.index)
            }
            _ => Err(Refusal::because(libc::ENODEV, format!("there is no link {bridge} of rnet"))),
        });
        Some((count, result))
    }

    /// Makes the kernel forget flows that the changes put in the wrong. The ports themselves are right by then, so
    /// a kernel that refuses is no reason to take them back: the flows then end by themselves.
    pub(super) fn forget_flows(&mut self, changes: &[(Publication, Change)]) {
        if changes.is_empty() {
            return;
        }
        let forgotten = self
            .addresses()
            .and_then(|locals| conntrack::forget(self.nft()?.channel_mut(), changes, &locals));
        if let Err(refusal) = forgotten {
            tracing::warn!("UDP flows of published ports are not forgotten: {refusal}");
        }
    }

    /// The host's own addresses.
    pub(super) fn addresses(&mut self) -> Result<Vec<IpAddr>, Refusal> {
        let list = self.host()?.dump(&address::list(), address::read)?;
        Ok(list.into_iter().map(|(_, address)| address.ip()).collect())
    }

    /// Does one step as far as it is not done yet, element by element.
    pub(super) fn settle_step(&mut self, step: &Step, netns: Option<&Netns>) -> Result<(), Refusal> {
        let alone = |linux: &mut Self| {
            linux.run_each(std::slice::from_ref(step), netns).map_err(|failed| failed.refusal)
        };
        if let Some((sandbox, inner)) = step.inside() {
            let sandbox = sandbox.clone();
            return self.enter(&sandbox, |linux, _| linux.settle_step(&inner, netns))?;
        }
        let (made, unmade) = match step {
            Step::Remove(Resource::Member(member)) => {
                (Vec::new(), firewall::member_parts(&self.table, member, false))
            }
            Step::Create(Resource::Member(member)) => {
                let parts = |make| firewall::member_parts(&self.table, member, make);
                (parts(true), parts(false))
            }
            Step::Remove(Resource::Published(publication)) => {
                (Vec::new(), firewall::publication_parts(&self.table, publication, false))
            }
            Step::Create(Resource::Published(publication)) => {
                let parts = |make| firewall::publication_parts(&self.table, publication, make);
                (parts(true), parts(false))
            }
            // What is left of it goes first: it is made as a whole.
            Step::Create(Resource::Guarded { link, rate, most }) => {
                let limits = Limits { link, rate: *rate, most: *most };
                for part in firewall::limit_parts(&self.table, &limits) {
                    let _ = self.nft()?.run(&part);
                }
                return alone(self);
            }
            Step::Remove(Resource::Guarded { link, rate, most }) => {
                let limits = Limits { link, rate: *rate, most: *most };
                (Vec::new(), firewall::limit_parts(&self.table, &limits))
            }
            _ => return alone(self),
        };
        let mut first = Ok(());
        let mut note = |result: Result<(), Rejected>| match result {
            Err(Rejected { refusal, .. }) if !is_settled(&refusal) => first = first.clone().and(Err(refusal)),
            _ => {}
        };
        if made.is_empty() {
            unmade.iter().try_for_each(|part| self.nft().map(|nft| note(nft.run(part))))?;
        }
        // An element that is there may lead elsewhere than it must.
        for (make, unmake) in made.iter().zip(&unmade) {
            match self.nft()?.run(make) {
                Err(Rejected { refusal, .. }) if refusal.errno == libc::EEXIST => {
                    note(self.nft()?.run(unmake));
                    note(self.nft()?.run(make));
                }
                result => note(result),
            }
        }
        match step {
            Step::Create(Resource::Published(port)) if conntrack::concerns(port) => {
                self.forget_flows(&[(port.clone(), Change::Opened)]);
            }
            Step::Remove(Resource::Published(port)) if conntrack::concerns(port) => {
                self.forget_flows(&[(port.clone(), Change::Closed)]);
            }
            _ => {}
        }
        first
    }

    /// Where many elements of the firewall are to come and go: all in one transaction, by what the sets hold now.
    /// Returns the steps that are done so; none where they are few, or where the tables themselves are to be made first.
    pub(super) fn settle_elements<'a>(&mut self, plan: &'a Plan) -> HashSet<&'a Step> {
        const FEW: usize = 16;
        let resource = |step: &'a Step| match step {
            Step::Create(resource @ (Resource::Member(_) | Resource::Published(_))) => Some((resource, true)),
            Step::Remove(resource @ (Resource::Member(_) | Resource::Published(_))) => {
                Some((resource, false))
            }
            Step::Create(_) | Step::Change { .. } | Step::Remove(_) => None,
        };
        let steps: HashSet<&Step> = plan.steps.iter().filter(|step| resource(step).is_some()).collect();
        let tables = plan.steps.contains(&Step::Create(Resource::Firewall));
        if steps.len() <= FEW || tables {
            return HashSet::new();
        }
        let of = |wanted: bool| {
            plan.steps
                .iter()
                .filter_map(resource)
                .filter(move |r| r.1 == wanted)
                .map(|r| r.0)
                .collect::<Vec<_>>()
        };
        let table = self.table.clone();
        let done = self.nft().and_then(|nft| firewall::converge(nft, &table, &of(true), &of(false)));
        if done.is_err() {
            return HashSet::new();
        }
        let changes = steps.iter().filter_map(|step| match step {
            Step::Create(Resource::Published(port)) => Some((port.clone(), Change::Opened)),
            Step::Remove(Resource::Published(port)) => Some((port.clone(), Change::Closed)),
            _ => None,
        });
        let changes: Vec<(Publication, Change)> =
            changes.filter(|(port, _)| conntrack::concerns(port)).collect();
        self.forget_flows(&changes);
        steps
    }

    pub(super) fn run_each(&mut self, steps: &[Step], netns: Option<&Netns>) -> Result<(), Failed> {
        let mut run = Run::new(self, netns);
        let mut at = 0;
        while at < steps.len() {
            run.at = at;
            if let Some((sandbox, _)) = steps[at].inside() {
                let same = |step: &&Step| step.inside().is_some_and(|(other, _)| other == sandbox);
                let count = steps[at..].iter().take_while(same).count();
                run.in_sandbox(&steps[at..at + count])?;
                at += count;
                continue;
            }
            if matches!(steps[at], Step::Remove(Resource::Veth { .. } | Resource::Ifb { .. })) {
                run.flush()?;
                if let Some((count, result)) = run.linux.delete_group(&steps[at..]) {
                    result.map_err(|refusal| Failed { at, done: at + count, refusal })?;
                    at += count;
                    continue;
                }
            }
            run.step(&steps[at])?;
            at += 1;
        }
        run.at = steps.len();
        run.flush()
    }
}

/// Whether a refusal says that the step was done before.
pub(super) fn is_settled(refusal: &Refusal) -> bool {
    refusal.is_missing() || refusal.errno == libc::EEXIST
}
