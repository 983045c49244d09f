//! A kernel that several processes of a test act upon, each through a handle of its own.

use std::{cell::RefCell, net::IpAddr, path::Path, rc::Rc};

use rnetkit_drivers::{Family, Id, Name, PortRange, Protocol, Resource};

use super::{Failed, Kernel, Known, Refusal, Stray, TableName, Underlay};
use crate::plan::{Plan, Step};

impl<K: Kernel> Kernel for Rc<RefCell<K>> {
    type Netns = K::Netns;
    type Sight = K::Sight;

    fn open(&self, path: &Path) -> Result<K::Netns, Refusal> {
        self.borrow().open(path)
    }

    fn identity(&self, netns: &K::Netns) -> (u64, u64) {
        self.borrow().identity(netns)
    }

    fn run(&mut self, steps: &[Step], netns: Option<&K::Netns>) -> Result<(), Failed> {
        self.borrow_mut().run(steps, netns)
    }

    fn settle(&mut self, plan: &Plan, netns: Option<&K::Netns>) -> Vec<(Step, Refusal)> {
        self.borrow_mut().settle(plan, netns)
    }

    fn find(
        &mut self,
        resources: &[Resource],
        netns: Option<&K::Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        self.borrow_mut().find(resources, netns)
    }

    fn look(&mut self) -> Result<K::Sight, Refusal> {
        self.borrow_mut().look()
    }

    fn find_in(
        &mut self,
        sight: &K::Sight,
        resources: &[Resource],
        netns: Option<&K::Netns>,
    ) -> Result<Vec<Option<Resource>>, Refusal> {
        self.borrow_mut().find_in(sight, resources, netns)
    }

    fn strays(&self, sight: &K::Sight, resources: &[Resource], marks: &[String]) -> Vec<Stray> {
        self.borrow().strays(sight, resources, marks)
    }

    fn remove_strays(&mut self, strays: &[Stray]) -> Vec<(Stray, Refusal)> {
        self.borrow_mut().remove_strays(strays)
    }

    fn subnets(&mut self) -> Result<Vec<Known>, Refusal> {
        self.borrow_mut().subnets()
    }

    fn listener(
        &mut self,
        address: IpAddr,
        ports: PortRange,
        protocol: Protocol,
        container: Option<&Id>,
    ) -> Result<Option<(u16, String)>, Refusal> {
        self.borrow_mut().listener(address, ports, protocol, container)
    }

    fn free_port_range(&mut self) -> PortRange {
        self.borrow_mut().free_port_range()
    }

    fn has_tables(&mut self, table: &TableName) -> Result<bool, Refusal> {
        self.borrow_mut().has_tables(table)
    }

    fn guarded_by_others(&mut self, family: Family) -> Result<bool, Refusal> {
        self.borrow_mut().guarded_by_others(family)
    }

    fn underlay(&mut self, address: Option<IpAddr>) -> Result<Underlay, Refusal> {
        self.borrow_mut().underlay(address)
    }

    fn end_cipher(&mut self) -> Result<(), Refusal> {
        self.borrow_mut().end_cipher()
    }

    fn use_tables(&mut self, table: TableName) {
        self.borrow_mut().use_tables(table);
    }

    fn lend_files(&mut self, name: &Name, folder: &Path) -> Result<bool, Refusal> {
        self.borrow_mut().lend_files(name, folder)
    }

    fn take_back_files(&mut self, name: &Name, folder: &Path) -> Result<(), Refusal> {
        self.borrow_mut().take_back_files(name, folder)
    }

    fn take_back_dead_files(&mut self, folder: &Path) {
        self.borrow_mut().take_back_dead_files(folder);
    }

    fn host_identity(&self) -> (u64, u64) {
        self.borrow().host_identity()
    }
}
