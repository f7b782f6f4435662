//! The image as plain bytes: what memory would hold from the lowest address on, zeros between sections.

use super::layout::Layout;
use crate::failure::Failure;

/// Sections mapped far apart make an image that is mostly zeros; more than this is a mistake.
const MOST: u64 = 1 << 30;

/// The bytes from the lowest to the highest address of all sections that have content.
pub(crate) fn image_bytes(layout: &Layout) -> Result<Vec<u8>, Failure> {
    let sections = layout.files.iter().flat_map(|file| &file.sections);
    let contents: Vec<_> = sections
        .filter_map(|section| Some((section.addr, section.content.as_deref()?)))
        .filter(|(_, content)| !content.is_empty())
        .collect();
    let start = contents.iter().map(|(address, _)| *address).min().unwrap_or(0);
    let end = contents.iter().map(|(address, content)| address.saturating_add(content.len() as u64)).max();
    let size = end.unwrap_or(start) - start;
    if size > MOST {
        let message = format!("the sections lie over {size} bytes, more than an image of {MOST} bytes holds");
        return Err(Failure::finding("image_size", message));
    }
    let mut image = vec![0; size as usize];
    for (address, content) in contents {
        let offset = (address - start) as usize;
        image[offset..offset + content.len()].copy_from_slice(content);
    }
    Ok(image)
}
