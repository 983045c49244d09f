//! A host in memory that can refuse or die at any step: what the verbs are tested on without root.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rnetkit_drivers::{Family, PortRange, Protocol, Resource};

use super::{Failed, Kernel, Known, Netns, Refusal};
use crate::plan::{Plan, Step};

/// A kernel that keeps resources in memory.
///
/// Container resources are kept under the namespace's identity, so that they die with it.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    /// What exists, and in which namespace (`None`: on the host).
    pub resources: Vec<(Option<(u64, u64)>, Resource)>,
    /// Refuse this many steps from now on: the step with that number, counted from 0.
    pub fail_at: Option<usize>,
    /// Die before the step with that number: this and all later calls fail, and nothing is undone.
    pub die_at: Option<usize>,
    /// Steps run so far.
    pub ran: usize,
    /// Set once dead.
    pub dead: bool,
    /// Subnets that the host routes.
    pub routed: Vec<IpNetwork>,
    /// Ports on which processes of the host listen.
    pub listening: Vec<(IpAddr, u16, Protocol)>,
}

impl Fake {
    /// The resources on the host itself, as text, sorted: to compare two states.
    #[must_use]
    pub fn host(&self) -> Vec<String> {
        let mut list: Vec<String> = self.resources.iter().map(|(_, resource)| resource.to_string()).collect();
        list.sort();
        list
    }

    fn place(resource: &Resource, netns: Option<&Netns>) -> Option<(u64, u64)> {
        let inside = matches!(resource.lives_on(), Some((rnetkit_drivers::Place::Container, _)));
        inside.then(|| netns.map(Netns::identity)).flatten()
    }

    fn step(&mut self, step: &Step, netns: Option<&Netns>) -> Result<(), Refusal> {
        if self.dead {
            return Err(Refusal::because(libc::EPIPE, "dead"));
        }
        let number = self.ran;
        self.ran += 1;
        if self.die_at == Some(number) {
            self.dead = true;
            return Err(Refusal::because(libc::EPIPE, "killed"));
        }
        if self.fail_at == Some(number) {
            return Err(Refusal::because(libc::EIO, "refused by the test"));
        }
        self.change(step, netns)
    }

    fn change(&mut self, step: &Step, netns: Option<&Netns>) -> Result<(), Refusal> {
        match step {
            Step::Create(resource) => {
                let key = (Self::place(resource, netns), resource.clone());
                let settles = resource.is_kept() || matches!(resource, Resource::Setting { .. });
                if self.resources.contains(&key) && !settles {
                    return Err(Refusal::new(libc::EEXIST));
                }
                if !self.resources.contains(&key) {
                    self.resources.push(key);
                }
            }
            Step::Change { from, to } => {
                let key = (Self::place(from, netns), from.clone());
                self.resources.retain(|other| *other != key);
                self.resources.push((Self::place(to, netns), to.clone()));
            }
            Step::Remove(resource) => {
                let key = (Self::place(resource, netns), resource.clone());
                if !self.resources.contains(&key) {
                    return Err(Refusal::new(libc::ENOENT));
                }
                self.resources.retain(|other| {
                    let goes_along =
                        other.1.lives_on().is_some_and(|(place, link)| resource.carries(place, link));
                    *other != key && !goes_along
                });
            }
        }
        Ok(())
    }
}

impl Kernel for Fake {
    fn run(&mut self, steps: &[Step], netns: Option<&Netns>) -> Result<(), Failed> {
        for (at, step) in steps.iter().enumerate() {
            self.step(step, netns).map_err(|refusal| Failed { at, sent: at, refusal })?;
        }
        Ok(())
    }

    fn take_back(&mut self, plan: &Plan, netns: Option<&Netns>) -> Vec<(Step, Refusal)> {
        let mut left = Vec::new();
        for step in &plan.steps {
            let result = if self.dead { Err(Refusal::new(libc::EPIPE)) } else { self.change(step, netns) };
            match result {
                Err(refusal) if !refusal.is_missing() && refusal.errno != libc::EEXIST => {
                    left.push((step.clone(), refusal))
                }
                _ => {}
            }
        }
        left
    }

    fn find(
        &mut self,
        resources: &[Resource],
        netns: Option<&Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        let found = resources.iter().map(|wanted| {
            let place = Self::place(wanted, netns);
            let same =
                |(at, other): &&(Option<(u64, u64)>, Resource)| *at == place && other.is_same_thing(wanted);
            self.resources.iter().find(same).map(|(_, other)| other.clone())
        });
        Ok(found.collect())
    }

    fn subnets(&mut self) -> Result<Vec<Known>, Refusal> {
        Ok(self
            .routed
            .iter()
            .map(|subnet| Known { subnet: *subnet, how: "a route of the test".to_owned() })
            .collect())
    }

    fn listener(
        &mut self,
        address: IpAddr,
        ports: PortRange,
        protocol: Protocol,
    ) -> Result<Option<(u16, String)>, Refusal> {
        let same = |(at, port, proto): &&(IpAddr, u16, Protocol)| {
            *at == address && ports.contains(*port) && *proto == protocol
        };
        Ok(self.listening.iter().find(same).map(|(_, port, _)| (*port, "a process of the test".to_owned())))
    }

    fn free_port_range(&mut self) -> PortRange {
        PortRange { first: 32768, last: 60999 }
    }

    fn has_tables(&mut self, _: &super::TableName) -> Result<bool, Refusal> {
        Ok(self.resources.iter().any(|(_, resource)| *resource == Resource::Firewall))
    }

    fn guarded_by_others(&mut self, _: Family) -> Result<bool, Refusal> {
        Ok(false)
    }

    fn use_tables(&mut self, _: super::TableName) {}

    fn host_identity(&self) -> (u64, u64) {
        (0, 0)
    }
}
