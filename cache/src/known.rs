//! What is written down of an entry, beside the entry itself.

use objcache_signature::Signature;
use serde::{Deserialize, Serialize};

use crate::admin::EntryInfo;
use crate::compression::Codec;

/// An [`EntryInfo`] without its signature, which is the key it is written under. `disk_bytes` is as it was
/// when written.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) object_bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) codec: u32,
    pub(crate) disk_bytes: u64,
    pub(crate) created_unix_us: u64,
    pub(crate) last_used_unix_us: u64,
    pub(crate) hits: u64,
    pub(crate) compile_time_us: u64,
    pub(crate) namespace: String,
    pub(crate) pinned: bool,
}

impl Known {
    pub(crate) fn of(info: &EntryInfo) -> Self {
        Self {
            object_bytes: info.object_bytes,
            stored_bytes: info.stored_bytes,
            codec: info.codec.number(),
            disk_bytes: info.disk_bytes,
            created_unix_us: info.created_unix_us,
            last_used_unix_us: info.last_used_unix_us,
            hits: info.hits,
            compile_time_us: info.compile_time_us,
            namespace: info.namespace.clone(),
            pinned: info.pinned,
        }
    }

    pub(crate) fn info(self, signature: Signature) -> EntryInfo {
        EntryInfo {
            signature,
            object_bytes: self.object_bytes,
            stored_bytes: self.stored_bytes,
            codec: Codec::from_number(self.codec).unwrap_or_default(),
            disk_bytes: self.disk_bytes,
            created_unix_us: self.created_unix_us,
            last_used_unix_us: self.last_used_unix_us,
            hits: self.hits,
            compile_time_us: self.compile_time_us,
            namespace: self.namespace,
            pinned: self.pinned,
        }
    }
}
