//! Stores a number for each of many devices in a few bits per device.
//!
//! A hash of the nodeId selects three cells of a table and a mask; their XOR is the number of the device. (The
//! literature calls this a static function, or an XOR filter. The table is solved from the cells that only one
//! device uses.) A device that was listed when the table was made always gets its own number, or 0 if it had
//! none. A device that was created later is recognized by its creation time, as the control server reports
//! it. Only an older device that was never listed can get a wrong number, in about one of 2^bits cases.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::model::{Device, NodeId};

/// More bits per cell would make no noticeable difference.
const MAX_BITS: usize = 32;
/// With fewer bits, a device that was never listed would get a number too often.
const MIN_BITS: usize = 3;
/// With this many bits, the devices without a number need not be in the table: a few tables are tried until
/// none of these devices gets a number by mistake.
const BITS_FOR_MEMBERS: usize = 16;
/// How many tables are tried.
const SEEDS: u32 = 32;

/// A number for each of many devices.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest {
    seed: u32,
    bits: usize,
    cells: Vec<u32>,
    /// When the newest device of the tailnet was created: a device that is newer has no number.
    newest: Option<Timestamp>,
}

impl Digest {
    /// Makes a table of at most `capacity` bits, in which the `members` have their numbers and no device of
    /// `others` has one. `None` if that is impossible.
    #[must_use]
    pub fn new(
        members: &BTreeMap<&NodeId, u32>,
        others: &[&NodeId],
        newest: Option<Timestamp>,
        capacity: usize,
    ) -> Option<Self> {
        let largest = members.values().max()?;
        let few = bits_for(members.len(), capacity);
        let mut entries: Vec<(&NodeId, u32)> = members.iter().map(|(id, it)| (*id, *it)).collect();
        let table = |entries: &[(&NodeId, u32)], seed, bits| {
            let cells = solve(entries, seed, bits)?;
            Some(Self {
                seed,
                bits,
                cells,
                newest,
            })
        };
        if few >= BITS_FOR_MEMBERS {
            let found = (0..SEEDS)
                .filter_map(|seed| table(&entries, seed, few))
                .find(|it| {
                    // A number beyond the largest belongs to no group, as 0 does.
                    let mut others = others.iter().map(|id| it.number(id));
                    others.all(|number| number == 0 || number > *largest)
                });
            if found.is_some() {
                return found;
            }
        }
        entries.extend(others.iter().map(|id| (*id, 0)));
        let bits = bits_for(entries.len(), capacity);
        // A cell must have room for the largest number.
        if bits < MIN_BITS || u64::from(*largest) >> bits != 0 {
            return None;
        }
        (0..SEEDS).find_map(|seed| table(&entries, seed, bits))
    }

    /// Reads a table.
    #[must_use]
    pub fn read(seed: u32, bits: u32, text: &str, newest: Option<Timestamp>) -> Option<Self> {
        let bytes = BASE64_STANDARD_NO_PAD.decode(text).ok()?;
        let bits = usize::try_from(bits).ok()?;
        if !(MIN_BITS..=MAX_BITS).contains(&bits) {
            return None;
        }
        let cells = unpack(&bytes, bits);
        // Someone may have edited the status: a table has three blocks of the same size.
        (cells.len() >= 3 && cells.len().is_multiple_of(3)).then_some(Self {
            seed,
            bits,
            cells,
            newest,
        })
    }

    /// The seed of the table, the bits of a cell, and the cells as text.
    #[must_use]
    pub fn write(&self) -> (u32, u32, String) {
        let bits = u32::try_from(self.bits).unwrap_or_default();
        let text = BASE64_STANDARD_NO_PAD.encode(pack(&self.cells, self.bits));
        (self.seed, bits, text)
    }

    /// When the newest device of the tailnet was created.
    #[must_use]
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// The number of a device; 0 if it has none.
    #[must_use]
    pub fn of(&self, device: &Device) -> u32 {
        let is_newer = match (device.created, self.newest) {
            (Some(created), Some(newest)) => created > newest,
            // Without a time, the device may have been there when the table was made.
            _ => false,
        };
        if is_newer {
            return 0;
        }
        self.number(&device.node_id)
    }

    fn number(&self, id: &NodeId) -> u32 {
        let Cells { cells, mask } = Cells::of(id, self.seed, self.cells.len() / 3, self.bits);
        let values = cells.iter().filter_map(|cell| self.cells.get(*cell));
        values.fold(mask, |number, value| number ^ value)
    }
}

fn shift(bits: usize) -> u32 {
    u32::try_from(bits).unwrap_or(u32::MAX)
}

/// The number of cells in each third of a table: 1.23 cells per device are enough to solve it.
fn block(entries: usize) -> usize {
    entries * 41 / 100 + 12
}

fn bits_for(entries: usize, capacity: usize) -> usize {
    (capacity / (3 * block(entries))).min(MAX_BITS)
}

/// The cells that give the number of a device.
struct Cells {
    cells: [usize; 3],
    mask: u32,
}

impl Cells {
    fn of(id: &NodeId, seed: u32, block: usize, bits: usize) -> Self {
        // Devices that no table can hold with one seed have other cells with another.
        let text = [&seed.to_be_bytes(), id.as_str().as_bytes()].concat();
        let hash = digest(&SHA256, &text);
        let word = |number: usize| {
            let bytes = hash.as_ref().iter().skip(4 * number).take(4);
            bytes.fold(0, |word: u32, byte| word << 8 | u32::from(*byte))
        };
        let cell = |number: usize| {
            let inside = usize::try_from(word(number)).unwrap_or_default() % block.max(1);
            number * block + inside
        };
        Self {
            cells: [cell(0), cell(1), cell(2)],
            mask: word(3) & mask(bits),
        }
    }
}

fn mask(bits: usize) -> u32 {
    u32::MAX
        .checked_shr(32_u32.saturating_sub(shift(bits)))
        .unwrap_or_default()
}

/// Finds cells that give each entry its number; `None` if it finds no solution for this seed.
fn solve(entries: &[(&NodeId, u32)], seed: u32, bits: usize) -> Option<Vec<u32>> {
    let block = block(entries.len());
    let places: Vec<Cells> = entries
        .iter()
        .map(|(id, _)| Cells::of(id, seed, block, bits))
        .collect();
    let mut left = vec![(0_usize, 0_usize); 3 * block];
    for (number, place) in places.iter().enumerate() {
        for cell in place.cells {
            let (count, all) = &mut left[cell];
            *count += 1;
            *all ^= number;
        }
    }
    let mut alone: Vec<usize> = (0..left.len()).filter(|cell| left[*cell].0 == 1).collect();
    let mut solved: Vec<(usize, usize)> = Vec::with_capacity(entries.len());
    while let Some(cell) = alone.pop() {
        // The XOR of the devices that use a cell is the one device that is left.
        let (count, number) = left[cell];
        // Another cell of the same device came first.
        if count != 1 {
            continue;
        }
        solved.push((number, cell));
        for other in places[number].cells {
            let (count, all) = &mut left[other];
            *count -= 1;
            *all ^= number;
            if *count == 1 {
                alone.push(other);
            }
        }
    }
    if solved.len() < entries.len() {
        return None;
    }
    let mut cells = vec![0; 3 * block];
    // In reverse, so that the cell which only this device uses is set after the cells that it shares.
    for (number, cell) in solved.into_iter().rev() {
        let place = &places[number];
        let others = place.cells.iter().filter(|other| **other != cell);
        let shared = others.fold(0, |value, other| value ^ cells[*other]);
        cells[cell] = entries[number].1 ^ place.mask ^ shared;
    }
    Some(cells)
}

fn pack(cells: &[u32], bits: usize) -> Vec<u8> {
    let mut bytes = vec![0_u8; (cells.len() * bits).div_ceil(8)];
    let all = cells
        .iter()
        .flat_map(|cell| (0..bits).rev().map(move |bit| cell >> bit & 1 == 1));
    for (place, _) in all.enumerate().filter(|(_, is_set)| *is_set) {
        bytes[place / 8] |= 128 >> (place % 8);
    }
    bytes
}

fn unpack(bytes: &[u8], bits: usize) -> Vec<u32> {
    // The bits that are left over only fill up a byte, or are not a whole third of a table.
    let cells = bytes.len() * 8 / bits / 3 * 3;
    (0..cells)
        .map(|number| {
            let places = number * bits..(number + 1) * bits;
            places.fold(0, |cell: u32, place| {
                cell << 1 | u32::from(bytes[place / 8] >> (7 - place % 8) & 1)
            })
        })
        .collect()
}
