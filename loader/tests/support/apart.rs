//! Memory that is said to be executed here and never is: an image can be linked as for this process, at the same addresses
//! each time, and looked at.

#![allow(unsafe_code)] // The promise of the memory manager trait.

use std::sync::{Arc, Mutex};

use objcache_loader::{
    FinalizedMemory, InFlightMemory, MemoryError, MemoryManager, MemoryRequest, Segment, WorkingMemory,
};

/// Segments 64 MiB from each other. Counts how often memory was taken, and how often it was asked for to be written.
#[derive(Debug, Clone)]
pub struct ApartMemory {
    pub taken: Arc<Mutex<usize>>,
    pub asked: Arc<Mutex<usize>>,
    /// No more bytes are given.
    pub most: usize,
    /// From one segment to the next.
    pub distance: u64,
}

impl Default for ApartMemory {
    fn default() -> Self {
        let (taken, asked) = Default::default();
        ApartMemory { taken, asked, most: DISTANCE as usize, distance: DISTANCE }
    }
}

/// Where the code is.
pub const CODE: u64 = 0x7000_0000_0000;
const DISTANCE: u64 = 64 << 20;

impl ApartMemory {
    /// Where a segment is.
    pub fn start(segment: Segment) -> u64 {
        CODE + DISTANCE * segment.index() as u64
    }
}

// SAFETY: the promise is not kept. Whoever uses this must not call what is loaded, nor register unwind tables.
unsafe impl MemoryManager for ApartMemory {
    fn allocate(&self, request: &MemoryRequest) -> Result<Box<dyn InFlightMemory>, MemoryError> {
        *self.taken.lock().unwrap() += 1;
        let sizes = request.segments.map(|segment| segment.size);
        if sizes.iter().any(|size| *size > self.most) || request.low_2gib {
            return Err(MemoryError::new("placing an image", "it is too large, or wants to be low"));
        }
        Ok(Box::new(Apart {
            asked: Arc::clone(&self.asked),
            distance: self.distance,
            bytes: sizes.map(|size| vec![0xa5; size]),
        }))
    }
}

struct Apart {
    asked: Arc<Mutex<usize>>,
    distance: u64,
    bytes: [Vec<u8>; 3],
}

impl InFlightMemory for Apart {
    fn target(&self, segment: Segment) -> u64 {
        CODE + self.distance * segment.index() as u64
    }

    fn working(&mut self) -> Result<[WorkingMemory<'_>; 3], MemoryError> {
        *self.asked.lock().unwrap() += 1;
        Ok(self.bytes.each_mut().map(|bytes| WorkingMemory { bytes, zeroed: false }))
    }

    fn finalize(self: Box<Self>) -> Result<Box<dyn FinalizedMemory>, MemoryError> {
        Ok(self)
    }
}

impl FinalizedMemory for Apart {
    fn linked_bytes(&self, segment: Segment) -> Option<&[u8]> {
        Some(&self.bytes[segment.index()])
    }
}
