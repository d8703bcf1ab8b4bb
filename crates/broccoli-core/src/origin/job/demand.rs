//! What an origin has learned of a task that some nodes are too small for.

use alloc::vec::Vec;
use core::mem::size_of;

use broccoli_proto::message::{Failure, Takes, TooSmall};
use broccoli_proto::{Epoch, NodeId};

use crate::origin::dispatch::place::{Code, Place};
use crate::text::too_many_args;

/// Nodes that a task is tried on which turn out to be too small for it; then it fails.
const TRIED_MAX: usize = 64;

/// What is known of a task that some nodes are too small for.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Its arguments, if they were too long for a node.
    args_bytes: u64,
    /// Its result, if that was.
    result_bytes: u64,
    /// Nodes that were too small in what they do not say of themselves.
    tried: Vec<(NodeId, Epoch)>,
    /// The largest of them, as [`Place::size`].
    floor: Option<u32>,
    /// The failure that is told if there is no larger node, and whose it is.
    pub(crate) worst: Option<(NodeId, Failure)>,
}

impl Demand {
    /// About what it takes of the memory.
    pub(crate) fn bytes(&self) -> usize {
        let text = self.worst.as_ref().map_or(0, |(_, failure)| failure.text.len());
        size_of::<Demand>() + text + self.tried.len() * size_of::<(NodeId, Epoch)>()
    }

    /// Whether a node may be large enough, as far as that is known.
    pub(crate) fn fits(&self, place: &Place) -> bool {
        self.args_bytes <= u64::from(place.takes.args_bytes)
            && self.result_bytes <= u64::from(place.takes.result_bytes)
            && self.tried.len() < TRIED_MAX
            && !self.tried.contains(&(place.name, place.epoch))
    }

    /// The places that are tried next: those that are larger than all before, if there are any.
    pub(crate) fn next<'p>(&self, places: &'p [Place]) -> impl Iterator<Item = &'p Place> {
        let fitting = || places.iter().filter(|place| place.code == Code::Here && self.fits(place));
        let is_larger = |place: &&Place| Some(place.size()) > self.floor;
        let floor = if fitting().any(|place| is_larger(&place)) { self.floor } else { None };
        let chosen: Vec<&Place> = fitting().filter(|place| Some(place.size()) > floor).collect();
        chosen.into_iter()
    }

    /// A node was too small.
    pub(crate) fn learn(&mut self, place: &Place, args_bytes: u64, failure: Failure) {
        let TooSmall { result_bytes, .. } = failure.too_small.unwrap_or_default();
        if args_bytes > u64::from(place.takes.args_bytes) {
            self.args_bytes = args_bytes;
        }
        self.result_bytes = self.result_bytes.max(result_bytes.unwrap_or(0));
        if self.fits(place) {
            self.tried.push((place.name, place.epoch));
        }
        if self.worst.is_none() || Some(place.size()) >= self.floor {
            self.worst = Some((place.name, failure));
        }
        self.floor = self.floor.max(Some(place.size()));
    }

    /// Which limit of which node it was: of those that are there, the one with the largest.
    pub(crate) fn verdict(&self, places: &[Place]) -> Option<(NodeId, Failure)> {
        let largest = |limit: fn(&Takes) -> u32| places.iter().max_by_key(|place| limit(&place.takes));
        if let Some(place) = largest(|takes| takes.args_bytes)
            && self.args_bytes > u64::from(place.takes.args_bytes)
        {
            let failure = too_many_args(self.args_bytes as usize, place.takes.args_bytes as usize);
            return Some((place.name, failure));
        }
        if let Some(place) = largest(|takes| takes.result_bytes)
            && self.result_bytes > u64::from(place.takes.result_bytes)
        {
            let failure = Failure::result_too_large(self.result_bytes as usize, place.takes.result_bytes as usize);
            return Some((place.name, failure));
        }
        self.worst.clone()
    }
}

/// About what is kept of a failure that says that a node is too small.
pub(crate) fn learned_bytes(failure: &Failure) -> usize {
    size_of::<Demand>() + size_of::<(NodeId, Epoch)>() + failure.text.len()
}
