//! What an origin has learned about a task that some nodes are too small for: its sizes, and the nodes that were tried.

use alloc::vec::Vec;
use core::mem::size_of;

use broccoli_proto::message::{Failure, Takes, TooSmall};
use broccoli_proto::{Epoch, NodeId};

use crate::origin::dispatch::place::{Code, Place};
use crate::text::too_many_args;

/// A task fails after this many nodes have turned out to be too small for it.
const TRIED_MAX: usize = 64;

/// What is known about a task that some nodes are too small for.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// Size of its arguments, if they exceeded a node's limit; otherwise 0.
    args_bytes: u64,
    /// Size of its result, if that exceeded a limit; otherwise 0.
    result_bytes: u64,
    /// Nodes that were too small although their stated limits allow the task.
    tried: Vec<(NodeId, Epoch)>,
    /// The size of the largest node that was too small, as [`Place::size`].
    floor: Option<u32>,
    /// The failure to report if there is no larger node, and the node that it comes from.
    pub(crate) worst: Option<(NodeId, Failure)>,
}

impl Demand {
    /// Its approximate size in memory.
    pub(crate) fn bytes(&self) -> usize {
        let text = self.worst.as_ref().map_or(0, |(_, failure)| failure.text.len());
        size_of::<Demand>() + text + self.tried.len() * size_of::<(NodeId, Epoch)>()
    }

    /// Whether a node may be large enough, as far as is known.
    pub(crate) fn fits(&self, place: &Place) -> bool {
        self.args_bytes <= u64::from(place.takes.args_bytes)
            && self.result_bytes <= u64::from(place.takes.result_bytes)
            && self.tried.len() < TRIED_MAX
            && !self.tried.contains(&(place.name, place.epoch))
    }

    /// The places to try next: those larger than all that were tried, if there are any.
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

    /// The failure to report: of the nodes that are there, it names the one with the highest limit.
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

/// Approximate memory that such a failure takes.
pub(crate) fn learned_bytes(failure: &Failure) -> usize {
    size_of::<Demand>() + size_of::<(NodeId, Epoch)>() + failure.text.len()
}
