//! Tests of the command `rnet` on a real kernel, from outside.
//!
//! Each test runs in network and mount namespaces of its own which play the host, with a neighbour on the LAN
//! beside it, so nothing here can touch the machine that runs it, and every test starts on a fresh host.
//! What a test made it takes back with `rnet`; then the host is compared with what it was at the beginning.
//!
//! Run all: `cargo test --test netns`. Run one: `cargo test --test netns -- publish::tcp_from_the_lan`.

mod agent;
mod attacks;
mod audit;
mod bad_input;
mod bridge;
mod churn;
mod cni;
mod cni_chain;
mod cni_clients;
mod cni_keys;
mod cni_makers;
mod cni_names;
mod cni_plugin;
mod cni_sweep;
mod command;
mod concurrency;
mod doctor;
mod events;
mod faults;
mod forge;
mod harness;
mod inspect;
mod ipv6;
mod isolation;
mod itself;
mod keep;
mod lab;
mod lan;
mod limits;
mod many;
mod model;
mod naive;
mod names;
mod others;
mod overlay;
mod page;
mod ptp;
mod publish;
mod records;
mod run;
mod services;
mod snapshot;
mod sweep;
mod traffic;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(&[
        itself::TESTS,
        bridge::TESTS,
        publish::TESTS,
        limits::TESTS,
        services::TESTS,
        lan::TESTS,
        ptp::TESTS,
        page::TESTS,
        others::TESTS,
        inspect::TESTS,
        bad_input::TESTS,
        run::TESTS,
        concurrency::TESTS,
        many::TESTS,
        keep::TESTS,
        records::TESTS,
        faults::TESTS,
        doctor::TESTS,
        churn::TESTS,
        model::TESTS,
        events::TESTS,
        agent::TESTS,
        names::answers::TESTS,
        names::files::TESTS,
        names::forward::TESTS,
        names::agent::TESTS,
        names::load::TESTS,
        attacks::TESTS,
        isolation::TESTS,
        ipv6::TESTS,
        cni::TESTS,
        cni_names::TESTS,
        cni_chain::TESTS,
        cni_makers::TESTS,
        cni_keys::TESTS,
        cni_sweep::TESTS,
        cni_clients::TESTS,
        sweep::TESTS,
        overlay::by_hand::TESTS,
        overlay::cluster::TESTS,
        overlay::encrypted::TESTS,
        overlay::faults::TESTS,
        overlay::members::TESTS,
        overlay::names::TESTS,
    ])
}
