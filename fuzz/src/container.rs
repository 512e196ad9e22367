//! Files that the load generator publishes, which may come from anywhere.

use railbird_loadgen::source::mp4;

/// An MP4 file. A clip is no larger than what it was read from, but for start codes in the
/// place of shorter lengths and the parameter sets that its keyframes get.
pub fn mp4(data: &[u8]) {
    let Ok(clip) = mp4::read(data, 30) else { return };
    assert!(clip.frames.first().is_some_and(|frame| frame.keyframe));
    assert!(clip.frames.iter().all(|frame| !frame.lasts.is_zero()));
    assert!(clip.frames.len() + clip.sound.len() <= data.len());
    for frame in &clip.frames {
        assert!(frame.data.len() <= 6 * data.len());
    }
    assert!(clip.sound.iter().map(|sound| sound.len()).sum::<usize>() <= data.len());
}
