//! The connections there are.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::io::FlowId;
use crate::tcp::{Flow, Key};

/// Part of the half-open connections that one destination may have.
const SHARE: usize = 4;

#[derive(Default)]
pub(super) struct Table {
    places: Vec<Place>,
    free: Vec<FlowId>,
    by_key: HashMap<Key, FlowId>,
    limit: usize,
    /// Connections that are not established, by destination.
    half_open: HashMap<SocketAddr, usize>,
    half_open_count: usize,
}

#[derive(Default)]
struct Place {
    flow: Option<Box<Flow>>,
    /// It is among the half-open ones.
    is_counted: bool,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    pub(super) fn find(&self, key: &Key) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, id: FlowId) -> Option<&Flow> {
        self.places.get(id.0 as usize)?.flow.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow> {
        self.places.get_mut(id.0 as usize)?.flow.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.places.iter().filter_map(|place| place.flow.as_deref())
    }

    pub(super) fn ids(&self) -> Vec<FlowId> {
        self.iter().map(|flow| flow.id).collect()
    }

    /// A number for a connection to `target`, unless there are too many that are not
    /// established.
    pub(super) fn reserve(&mut self, target: SocketAddr, most: usize) -> Option<FlowId> {
        let there = self.half_open.get(&target).copied().unwrap_or(0);
        if self.half_open_count >= most || there >= (most / SHARE).max(1) {
            return None;
        }
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let id = FlowId(u32::try_from(self.places.len()).ok()?);
                self.places.push(Place::default());
                id
            }
        };
        *self.half_open.entry(target).or_default() += 1;
        self.half_open_count += 1;
        Some(id)
    }

    /// The number was not needed.
    pub(super) fn give_up(&mut self, id: FlowId, target: SocketAddr) {
        self.uncount(target);
        self.free.push(id);
    }

    pub(super) fn insert(&mut self, id: FlowId, flow: Flow) {
        if let Some(place) = self.places.get_mut(id.0 as usize) {
            self.by_key.insert(flow.key, id);
            place.flow = Some(Box::new(flow));
            place.is_counted = true;
        }
    }

    /// Takes note of a connection that has been established.
    pub(super) fn note_open(&mut self, id: FlowId) {
        let Some(place) = self.places.get_mut(id.0 as usize) else {
            return;
        };
        if let Some(flow) = &place.flow
            && place.is_counted
            && !flow.is_half_open()
        {
            place.is_counted = false;
            let target = flow.target;
            self.uncount(target);
        }
    }

    pub(super) fn remove(&mut self, id: FlowId) -> Option<Box<Flow>> {
        let place = self.places.get_mut(id.0 as usize)?;
        let flow = place.flow.take()?;
        if std::mem::take(&mut place.is_counted) {
            self.uncount(flow.target);
        }
        self.by_key.remove(&flow.key);
        self.free.push(id);
        Some(flow)
    }

    fn uncount(&mut self, target: SocketAddr) {
        self.half_open_count = self.half_open_count.saturating_sub(1);
        if let Some(count) = self.half_open.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.half_open.remove(&target);
            }
        }
    }
}
