//! What an overlay network needs to know of its host: by which address others reach it, and how much of a packet is
//! left. Never talks to other hosts.

use rnetkit_drivers::{
    Network,
    overlay::{self, MOST_VNI, OWN_ADDRESS, SMALLEST_VNI, Settings},
};

use super::Rnet;
use crate::{error::Error, kernel::Kernel};

impl<K: Kernel> Rnet<K> {
    /// Fills in what the user left open: the own address, the largest packet, the number on the wire.
    pub(super) fn decide_overlay(&mut self, network: &mut Network) -> Result<(), Error> {
        let settings = Settings::of(network)?;
        if !settings.is_by_hand() {
            let what = "an overlay network needs a store that its hosts share, or their addresses: -o peers=HOST=RANGE,...";
            return Err(Error::Unsupported { what: what.to_owned() });
        }
        let underlay = self
            .kernel
            .underlay(settings.local)
            .map_err(|refusal| Error::kernel("find out how other hosts reach this one", refusal))?;
        let most = underlay.mtu.saturating_sub(overlay::overhead(underlay.address));
        if let Some(mtu) = settings.mtu.filter(|mtu| *mtu > most) {
            let what = format!(
                "packets of {mtu} bytes do not fit: {} has {} bytes, and that leaves {most}",
                underlay.address, underlay.mtu
            );
            return Err(Error::Unsupported { what });
        }
        let number = number_of(network);
        let options = &mut network.options;
        if settings.local.is_none() {
            options.insert(OWN_ADDRESS.to_owned(), underlay.address.to_string());
        }
        if settings.mtu.is_none() {
            options.insert("mtu".to_owned(), most.to_string());
        }
        if settings.vni.is_none() {
            options.insert("vni".to_owned(), number.to_string());
        }
        Ok(())
    }
}

/// The number on the wire that follows from the subnets, so that hosts that are told the same of a network by hand
/// agree on it (FNV-1a).
fn number_of(network: &Network) -> u32 {
    let text: Vec<String> = network.pools.iter().map(|pool| pool.subnet.to_string()).collect();
    let hash = text.join(" ").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let numbers = u64::from(MOST_VNI - SMALLEST_VNI + 1);
    SMALLEST_VNI + u32::try_from(hash % numbers).unwrap_or(0)
}
