//! All that is followed, as it is now: listed once, then kept by what the store tells. What is unchanged is never
//! reported, whatever happened between.

use std::collections::BTreeMap;

use super::store::{Event, Store, Trouble, Watch};

/// A part of the store, followed.
pub struct Follow<S: Store> {
    prefix: String,
    watch: Option<S::Watch>,
    known: BTreeMap<String, Vec<u8>>,
    revision: i64,
}

/// What is different: a key, and its value unless it is gone.
pub type Difference = (String, Option<Vec<u8>>);

impl<S: Store> Follow<S> {
    /// Of keys that begin so.
    #[must_use]
    pub fn new(prefix: String) -> Self {
        Self { prefix, watch: None, known: BTreeMap::new(), revision: 0 }
    }

    /// What is known now.
    #[must_use]
    pub fn known(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.known
    }

    /// The revision until which it is known.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Whether it is told of changes now.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.watch.is_some()
    }

    /// What is different since the last call; waits until something is. May be dropped while it waits.
    ///
    /// # Errors
    /// When the store cannot be reached; the next call begins with a list then.
    pub async fn next(&mut self, store: &S) -> Result<Vec<Difference>, Trouble> {
        loop {
            let Some(watch) = &mut self.watch else { return self.list(store).await };
            match watch.next().await {
                Ok(changes) => {
                    self.revision = self.revision.max(changes.revision);
                    return Ok(changes.events.into_iter().filter_map(|event| self.take(event)).collect());
                }
                Err(Trouble::Compacted) => self.watch = None,
                Err(trouble) => {
                    self.watch = None;
                    return Err(trouble);
                }
            }
        }
    }

    async fn list(&mut self, store: &S) -> Result<Vec<Difference>, Trouble> {
        let listing = store.list(&self.prefix).await?;
        let watch = store.watch(&self.prefix, listing.revision + 1).await?;
        let mut gone: Vec<String> = self.known.keys().cloned().collect();
        gone.retain(|key| listing.entries.binary_search_by(|entry| entry.key.cmp(key)).is_err());
        let mut list: Vec<Difference> =
            gone.into_iter().filter_map(|key| self.take(Event::Delete(key))).collect();
        list.extend(listing.entries.into_iter().filter_map(|entry| self.take(Event::Put(entry))));
        self.revision = listing.revision;
        self.watch = Some(watch);
        Ok(list)
    }

    fn take(&mut self, event: Event) -> Option<Difference> {
        match event {
            Event::Put(entry) => {
                let before = self.known.insert(entry.key.clone(), entry.value.clone());
                (before.as_ref() != Some(&entry.value)).then_some((entry.key, Some(entry.value)))
            }
            Event::Delete(key) => self.known.remove(&key).map(|_| (key, None)),
        }
    }
}
