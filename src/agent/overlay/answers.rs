//! What the verbs ask the part for, and what it answers: a value, or why not.

use std::{collections::BTreeMap, net::IpAddr};

use rnetkit_drivers::{Id, Network, overlay};
use serde_json::{Value, json};

use super::{client::Seen, core::Core};
use crate::{
    cluster::{
        Host, is_encrypted,
        operations::{Refused, Wish},
        store::{Store, Trouble},
    },
    error::{Error, shown},
    kernel::Kernel,
    verbs,
};

impl<S: Store, K: Kernel> Core<S, K> {
    /// Answers one question of the verbs.
    pub async fn answer(&mut self, words: &Value) -> Value {
        let asked = words["do"].as_str().unwrap_or_default();
        let needs_store = matches!(asked, "create" | "remove" | "reserve" | "settle" | "fence");
        if let Some(reason) = self.distrust.as_ref().filter(|_| needs_store) {
            return json!({"no": reason});
        }
        if needs_store
            && !self.registered
            && let Err(refused) = self.begin().await
        {
            return no(asked, &refused);
        }
        let result = match asked {
            "sync" => Ok(Value::Null),
            "status" => Ok(self.status()),
            "hosts" => Ok(json!(self.hosts())),
            "settle" => self.settle().await.map(|()| Value::Null),
            "create" => self.create(&words["network"]).await,
            "remove" => self.remove(&words["network"]).await,
            "reserve" => self.reserve(words).await,
            "fence" => self.fence(&words["host"]).await,
            other => Err(Error::agent(format!("it does not know how to {}", shown(other))).into()),
        };
        match result {
            Ok(value) if matches!(asked, "sync" | "status") => value,
            Ok(value) => json!({"ok": value}),
            Err(refused) => no(asked, &refused),
        }
    }

    fn status(&self) -> Value {
        json!({
            "host": self.cluster.me.id,
            "registered": self.registered,
            "follows": self.follow.is_told(),
            "revision": self.follow.revision(),
            "hosts": self.hosts.len(),
            "networks": self.networks.len(),
            "encrypts": self.says_encrypts(),
            "trouble": self.distrust.as_ref().or(self.trouble.as_ref()),
        })
    }

    fn hosts(&self) -> Vec<Seen> {
        let count =
            |host: &Id| self.ends.values().flat_map(BTreeMap::keys).filter(|(of, _)| of == host).count();
        let seen = |host: &Host| Seen {
            host: host.clone(),
            alive: self.alive.contains(&host.id),
            here: host.id == self.cluster.me.id,
            endpoints: count(&host.id),
        };
        self.hosts.values().map(seen).collect()
    }

    async fn create(&mut self, network: &Value) -> Result<Value, Refused> {
        let mut network: Network = read(network)?;
        let encrypted = is_encrypted(&network);
        if encrypted {
            self.encrypt_for(Some(&network))?;
        }
        if !network.options.contains_key("mtu")
            && !network.options.contains_key("com.docker.network.driver.mtu")
        {
            let mtus = self.hosts.values().chain([&self.cluster.me]).filter(|host| !host.fenced);
            let least =
                mtus.map(|host| overlay::inner_mtu(host.address, host.mtu, encrypted)).min().unwrap_or(1450);
            network.options.insert("mtu".to_owned(), least.to_string());
        }
        let mut created = self.cluster.create(&network).await?;
        self.networks.insert(created.id, created.clone());
        created.group = network.group;
        created.options.insert(overlay::OWN_ADDRESS.to_owned(), self.own_address(&created)?.to_string());
        Ok(json!(created))
    }

    /// What this host sends the network's packets from.
    fn own_address(&self, network: &Network) -> Result<IpAddr, Error> {
        let own = self.cluster.me.address_for(is_encrypted(network));
        own.ok_or_else(|| Error::Unsupported { what: self.cannot_encrypt() })
    }

    async fn remove(&mut self, network: &Value) -> Result<Value, Refused> {
        let id: Id = read(network)?;
        if let Some(network) = self.networks.get(&id).cloned() {
            self.cluster.remove(&network).await?;
            self.networks.remove(&id);
            self.encrypt();
        }
        Ok(Value::Null)
    }

    async fn reserve(&mut self, words: &Value) -> Result<Value, Refused> {
        let (network, endpoint): (Id, Id) = (read(&words["network"])?, read(&words["endpoint"])?);
        let (name, asked): (String, Vec<IpAddr>) = (read(&words["name"])?, read(&words["asked"])?);
        let known = match self.networks.get(&network) {
            Some(known) => Some(known.clone()),
            // An agent that just began may not have heard of it yet.
            None => self.cluster.networks().await?.into_iter().find(|known| known.id == network),
        };
        let network = known.ok_or_else(|| Error::NetworkNotFound { name: network.short() })?;
        let mtu: u32 = network.options.get("mtu").and_then(|mtu| mtu.parse().ok()).unwrap_or(0);
        let (me, encrypted) = (&self.cluster.me, is_encrypted(&network));
        let most = overlay::inner_mtu(me.address, me.mtu, encrypted);
        if mtu > most {
            let what = format!(
                "network {} has packets of {mtu} bytes, and {} of this host leaves {most}",
                network.name, self.cluster.me.address
            );
            return Err(Error::Unsupported { what }.into());
        }
        if encrypted {
            self.encrypt_for(Some(&network))?;
        }
        self.in_flight.insert(endpoint, verbs::uptime());
        let wish = Wish { endpoint, name, asked };
        let reserved = self.cluster.reserve(&network, &wish).await;
        let addresses = reserved.inspect_err(|_| self.nobody_waits_for(&endpoint))?;
        self.moved_here(&network.id, &addresses);
        Ok(json!(addresses))
    }

    /// Whoever asked was told that there is nothing to wait for any more: what was reserved all the same is given back.
    pub fn give_up(&mut self, words: &Value) {
        if words["do"] == "reserve"
            && let Ok(endpoint) = read::<Id>(&words["endpoint"])
        {
            self.nobody_waits_for(&endpoint);
        }
    }

    fn nobody_waits_for(&mut self, endpoint: &Id) {
        self.in_flight.remove(endpoint);
        self.given_up = true;
    }

    /// Whoever had these addresses elsewhere has them no more, whether that was heard of or not: what leads there goes
    /// before anything leads to where they are now.
    fn moved_here(&mut self, network: &Id, addresses: &[IpAddr]) {
        let Some(ends) = self.ends.get_mut(network) else { return };
        let before = ends.len();
        let me = self.cluster.me.id;
        ends.retain(|(host, _), end| *host == me || !end.addresses.iter().any(|one| addresses.contains(one)));
        if ends.len() < before {
            self.place(network);
        }
    }

    async fn fence(&mut self, host: &Value) -> Result<Value, Refused> {
        let host: Id = read(host)?;
        if host == self.cluster.me.id {
            let what =
                "this host cannot remove itself: stop its agent, and remove it from another host".to_owned();
            return Err(Error::Unsupported { what }.into());
        }
        self.cluster.fence(&host).await?;
        Ok(Value::Null)
    }
}

/// What whoever asked is told where the store does not answer in time.
pub fn late(words: &Value) -> Value {
    let late = Trouble::Unreachable("no answer in time".to_owned());
    no(words["do"].as_str().unwrap_or_default(), &late.into())
}

fn read<T: for<'a> serde::Deserialize<'a>>(value: &Value) -> Result<T, Error> {
    serde_json::from_value(value.clone()).map_err(|error| Error::agent(shown(&error.to_string())))
}

fn no(asked: &str, refused: &Refused) -> Value {
    let what = match asked {
        "reserve" => "overlay: cannot reserve an address: ",
        "create" => "overlay: cannot create the network: ",
        "remove" => "overlay: cannot remove the network: ",
        _ => "overlay: ",
    };
    json!({"no": match refused {
        Refused::No(error) => error.to_string(),
        Refused::Trouble(trouble) => format!("{what}{trouble}; running containers are not affected"),
        Refused::Fenced => format!("{what}this host was removed from the cluster, and comes back in a moment"),
    }})
}
