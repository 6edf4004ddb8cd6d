//! What somebody removed by hand of the engine's network.

use std::collections::BTreeSet;

use super::{Net, device, lock};
use crate::error::{Error, Result};
use crate::networks::{nft, route};

impl Net {
    /// What is missing in the kernel of what was made: somebody removed it by hand. Blocks.
    pub(crate) fn audit(&self) -> Result<Vec<(String, &'static str)>> {
        let (links, bridges, apart) = {
            let places = lock(&self.places);
            let links: Vec<(u32, String)> = places
                .members
                .values()
                .flat_map(|member| {
                    let on_bridges = member.places.iter().filter(|place| place.alone.is_none());
                    on_bridges.map(|place| (place.link, format!("{} in {}", member.name, place.endpoint.network)))
                })
                .collect();
            let bridges: Vec<(u32, String, bool)> = places
                .bridges
                .values()
                .filter(|bridge| bridge.has_a_bridge())
                .map(|bridge| (bridge.index, bridge.name.clone(), bridge.internal))
                .collect();
            (links, bridges, !places.links_apart().is_empty())
        };
        let mut missing = self.audit_parents()?;
        missing.extend(self.audit_driven());
        let mut kernel = lock(&self.kernel);
        let found = kernel
            .route
            .dump(&route::all_links())
            .map_err(|error| Error::os("list links", error))?;
        let there: BTreeSet<u32> = found
            .iter()
            .filter_map(|body| route::read_link(body))
            .map(|(index, _)| index)
            .collect();
        for (index, name, _) in &bridges {
            if !there.contains(index) {
                missing.push((name.clone(), "its bridge is gone: somebody removed it"));
            }
        }
        for (index, name) in &links {
            if !there.contains(index) {
                missing.push((name.clone(), "its link is gone: somebody removed it"));
            }
        }
        let ways_out = bridges.iter().filter(|bridge| !bridge.2).map(|bridge| bridge.0);
        let devices = links.iter().map(|link| device(link.0));
        for (family, chain) in nft::chains(ways_out, devices, apart) {
            let rules = kernel.nft.dump(&nft::rules_of(family, &chain));
            if rules.is_ok_and(|rules| !rules.is_empty()) {
                continue;
            }
            missing.push((format!("rules {chain}"), "they are gone: somebody removed them"));
        }
        Ok(missing)
    }
}
