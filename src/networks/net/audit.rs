//! What somebody removed by hand of the engine's network.

use std::collections::BTreeSet;

use super::{Net, device, lock};
use crate::error::{Error, Result};
use crate::networks::{nft, route};

/// What was made in the kernel, as far as it is to be there: by the numbers of its links, which no other link ever has.
struct Standing {
    /// Containers' links, and whose they are.
    links: Vec<(u32, String)>,
    bridges: Vec<Standee>,
    apart: bool,
}

struct Standee {
    index: u32,
    name: String,
    internal: bool,
}

impl Standing {
    /// The numbers of all links.
    fn numbers(&self) -> BTreeSet<u32> {
        let links = self.links.iter().map(|(index, _)| *index);
        links.chain(self.bridges.iter().map(|bridge| bridge.index)).collect()
    }

    fn retain(&mut self, numbers: &BTreeSet<u32>) {
        self.links.retain(|(index, _)| numbers.contains(index));
        self.bridges.retain(|bridge| numbers.contains(&bridge.index));
    }
}

impl Net {
    fn standing(&self) -> Standing {
        let places = lock(&self.places);
        let links = places.members.values().flat_map(|member| {
            let made = member.places.iter().filter(|place| place.made);
            made.map(|place| (place.link, format!("{} in {}", member.name, place.endpoint.network)))
        });
        let bridges = places.bridges.values().filter(|bridge| bridge.has_a_bridge());
        Standing {
            links: links.collect(),
            bridges: bridges
                .map(|bridge| Standee {
                    index: bridge.index,
                    name: bridge.name.clone(),
                    internal: bridge.internal,
                })
                .collect(),
            apart: !places.links_apart().is_empty(),
        }
    }

    /// What is missing in the kernel of what was made: somebody removed it by hand. Blocks.
    pub(crate) fn audit(&self) -> Result<Vec<(String, &'static str)>> {
        let mut missing = self.audit_parents()?;
        missing.extend(self.audit_driven());
        let mut standing = self.standing();
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
        let mut gone = Vec::new();
        let ways_out = standing.bridges.iter().filter(|bridge| !bridge.internal);
        let ways_out = ways_out.map(|bridge| bridge.index);
        let devices = standing.links.iter().map(|link| device(link.0));
        for (family, chain) in nft::chains(ways_out, devices, standing.apart) {
            let rules = kernel.nft.dump(&nft::rules_of(family, &chain));
            if !rules.is_ok_and(|rules| !rules.is_empty()) {
                gone.push(chain);
            }
        }
        drop(kernel);
        // What was taken away meanwhile as it should be is missing by right: it is forgotten before it goes.
        standing.retain(&self.standing().numbers());
        for bridge in standing.bridges.iter().filter(|bridge| !there.contains(&bridge.index)) {
            missing.push((bridge.name.clone(), "its bridge is gone: somebody removed it"));
        }
        for (_, name) in standing.links.iter().filter(|(index, _)| !there.contains(index)) {
            missing.push((name.clone(), "its link is gone: somebody removed it"));
        }
        let ways_out = standing.bridges.iter().map(|bridge| bridge.index);
        let devices = standing.links.iter().map(|link| device(link.0));
        let expected: BTreeSet<String> = nft::chains(ways_out, devices, standing.apart)
            .map(|(_, chain)| chain)
            .collect();
        for chain in gone.into_iter().filter(|chain| expected.contains(chain)) {
            missing.push((format!("rules {chain}"), "they are gone: somebody removed them"));
        }
        Ok(missing)
    }
}
