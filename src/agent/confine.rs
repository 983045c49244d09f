//! What a part of the agent gives up before it meets anybody: capabilities, and the way to get others. Never gives
//! anything.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// From now on this process has these capabilities at most, and what it executes can have no others.
///
/// # Errors
/// When the kernel refuses.
pub fn bound(keep: CapabilitySet) -> io::Result<()> {
    let all = CapabilitySet::all();
    for one in all.difference(keep).iter() {
        // A capability that this kernel does not know is in no set.
        if capability_is_in_bounding_set(one).unwrap_or(false) {
            remove_capability_from_bounding_set(one)?;
        }
    }
    Ok(())
}

/// Keeps those of these capabilities that the process has, and gives up all others.
///
/// # Errors
/// When the kernel refuses.
pub fn keep(keep: CapabilitySet) -> io::Result<()> {
    let now = capabilities(None)?;
    let kept = now.permitted & keep;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Nothing that the process executes can give it more than it has.
///
/// # Errors
/// When the kernel refuses.
pub fn no_new_privileges() -> io::Result<()> {
    Ok(set_no_new_privs(true)?)
}
