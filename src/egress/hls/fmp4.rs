//! Fragmented MP4: one track per file, one `moof` + `mdat` per part.
//!
//! An init segment (`ftyp` + `moov` with an empty sample table) is followed by
//! fragments that each say their own decode time, so that a player can start at
//! any part that begins with a random access point. Source: ISO/IEC 14496-12
//! §8.8 (movie fragments), CMAF (ISO/IEC 23000-19) §7.3.

use std::num::NonZeroU32;

use bytes::{BufMut, Bytes, BytesMut};
use shiguredo_mp4::boxes::{
    Brand, DinfBox, FtypBox, HdlrBox, MdhdBox, MdiaBox, MediaHeader, MfhdBox, MinfBox, MoofBox,
    MoovBox, MvexBox, MvhdBox, SmhdBox, StblBox, StcoBox, StscBox, StsdBox, StszBox, SttsBox,
    TfdtBox, TfhdBox, TkhdBox, TrafBox, TrakBox, TrexBox, TrunBox, TrunSample, VmhdBox,
};
use shiguredo_mp4::{
    Either, Encode, FixedPointNumber, LanguageCode, Mp4FileTime, SampleFlags, Utf8String,
};

use super::sample::TrackConfig;
use crate::codec::MediaKind;

/// Every file has one track, with this id.
const TRACK_ID: u32 = 1;

/// Header of an `mdat` with a 32-bit size.
const MDAT_HEADER: usize = 8;

/// A box could not be written: a field does not fit its place in the format.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the MP4 boxes: {0}")]
pub struct Fmp4Error(String);

impl From<shiguredo_mp4::Error> for Fmp4Error {
    fn from(error: shiguredo_mp4::Error) -> Self {
        Self(error.reason)
    }
}

/// One sample of a fragment.
#[derive(Debug, Clone)]
pub struct Sample {
    /// In ticks of the track.
    pub duration: u32,
    /// Presentation minus decode time, in ticks of the track.
    pub composition_offset: i32,
    /// A decoder may start here.
    pub sync: bool,
    /// The coded bytes.
    pub data: Bytes,
}

/// The init segment of a track.
///
/// # Errors
/// [`Fmp4Error`] when the sample entry cannot be written.
pub fn init_segment(
    kind: MediaKind,
    timescale: NonZeroU32,
    config: &TrackConfig,
) -> Result<Bytes, Fmp4Error> {
    let ftyp = FtypBox {
        major_brand: Brand::ISO6,
        minor_version: 0,
        compatible_brands: vec![Brand::ISO6, Brand::new(*b"cmfc")],
    };
    let moov = MoovBox {
        mvhd_box: MvhdBox {
            creation_time: Mp4FileTime::default(),
            modification_time: Mp4FileTime::default(),
            timescale,
            duration: 0,
            rate: MvhdBox::DEFAULT_RATE,
            volume: MvhdBox::DEFAULT_VOLUME,
            matrix: MvhdBox::DEFAULT_MATRIX,
            next_track_id: TRACK_ID + 1,
        },
        trak_boxes: vec![track(kind, timescale, config)],
        mvex_box: Some(MvexBox {
            mehd_box: None,
            trex_boxes: vec![TrexBox {
                track_id: TRACK_ID,
                default_sample_description_index: 1,
                default_sample_duration: 0,
                default_sample_size: 0,
                default_sample_flags: SampleFlags::empty(),
            }],
            unknown_boxes: Vec::new(),
        }),
        unknown_boxes: Vec::new(),
    };
    let mut bytes = ftyp.encode_to_vec()?;
    bytes.extend(moov.encode_to_vec()?);
    Ok(bytes.into())
}

fn track(kind: MediaKind, timescale: NonZeroU32, config: &TrackConfig) -> TrakBox {
    let (volume, handler_type, name, header) = match kind {
        MediaKind::Video => (
            TkhdBox::DEFAULT_VIDEO_VOLUME,
            HdlrBox::HANDLER_TYPE_VIDE,
            "video",
            MediaHeader::Vmhd(VmhdBox::default()),
        ),
        MediaKind::Audio => (
            TkhdBox::DEFAULT_AUDIO_VOLUME,
            HdlrBox::HANDLER_TYPE_SOUN,
            "audio",
            MediaHeader::Smhd(SmhdBox::default()),
        ),
    };
    TrakBox {
        tkhd_box: TkhdBox {
            flag_track_enabled: true,
            flag_track_in_movie: true,
            flag_track_in_preview: false,
            flag_track_size_is_aspect_ratio: false,
            creation_time: Mp4FileTime::default(),
            modification_time: Mp4FileTime::default(),
            track_id: TRACK_ID,
            duration: 0,
            layer: TkhdBox::DEFAULT_LAYER,
            alternate_group: TkhdBox::DEFAULT_ALTERNATE_GROUP,
            volume,
            matrix: TkhdBox::DEFAULT_MATRIX,
            width: side(config.width),
            height: side(config.height),
        },
        edts_box: None,
        mdia_box: MdiaBox {
            mdhd_box: MdhdBox {
                creation_time: Mp4FileTime::default(),
                modification_time: Mp4FileTime::default(),
                timescale,
                duration: 0,
                language: LanguageCode::UNDEFINED,
            },
            hdlr_box: HdlrBox {
                handler_type,
                name: Utf8String::new(name).unwrap_or_default().into_null_terminated_bytes(),
            },
            minf_box: MinfBox {
                media_header: Some(header),
                dinf_box: DinfBox::LOCAL_FILE,
                stbl_box: sample_table(config),
                unknown_boxes: Vec::new(),
            },
            unknown_boxes: Vec::new(),
        },
        unknown_boxes: Vec::new(),
    }
}

/// A side of the picture as 16.16 fixed point, whose type here is signed.
fn side(pixels: u16) -> FixedPointNumber<i16, u16> {
    FixedPointNumber::new(i16::try_from(pixels).unwrap_or(i16::MAX), 0)
}

/// Only the sample entry: the samples are described in the fragments.
fn sample_table(config: &TrackConfig) -> StblBox {
    StblBox {
        stsd_box: StsdBox { entries: vec![config.entry.clone()] },
        stts_box: SttsBox { entries: Vec::new() },
        ctts_box: None,
        cslg_box: None,
        stsc_box: StscBox { entries: Vec::new() },
        stsz_box: StszBox::Variable { entry_sizes: Vec::new() },
        stco_or_co64_box: Either::A(StcoBox { chunk_offsets: Vec::new() }),
        stss_box: None,
        sdtp_box: None,
        unknown_boxes: Vec::new(),
    }
}

/// One `moof` + `mdat` whose first sample is decoded at `decode_time` ticks. Without
/// samples it says that there are none for `ticks` (`duration-is-empty`, §8.8.7.1).
///
/// # Errors
/// [`Fmp4Error`] when the fragment would not fit 32-bit sizes.
pub fn fragment(
    sequence: u32,
    decode_time: u64,
    ticks: u64,
    samples: &[Sample],
) -> Result<Bytes, Fmp4Error> {
    let empty = samples.is_empty().then(|| u32::try_from(ticks).unwrap_or(u32::MAX));
    let boxes = |offset| movie_fragment(sequence, decode_time, empty, samples, offset);
    // The offset is a field of fixed size, so a first pass with 0 gives the length of the box.
    let header = boxes(0)?.encode_to_vec()?.len();
    let too_large = |_| Fmp4Error("fragment of more than 2 GiB".to_owned());
    let offset = i32::try_from(header + MDAT_HEADER).map_err(too_large)?;
    let moof = boxes(offset)?.encode_to_vec()?;
    let payload: usize = samples.iter().map(|sample| sample.data.len()).sum();
    let mdat = u32::try_from(MDAT_HEADER + payload).map_err(too_large)?;
    let mut bytes = BytesMut::with_capacity(moof.len() + MDAT_HEADER + payload);
    bytes.put_slice(&moof);
    bytes.put_u32(mdat);
    bytes.put_slice(b"mdat");
    for sample in samples {
        bytes.put_slice(&sample.data);
    }
    Ok(bytes.freeze())
}

fn movie_fragment(
    sequence: u32,
    decode_time: u64,
    empty: Option<u32>,
    samples: &[Sample],
    data_offset: i32,
) -> Result<MoofBox, Fmp4Error> {
    let reordered = samples.iter().any(|sample| sample.composition_offset != 0);
    let entry = |sample: &Sample| {
        let size = u32::try_from(sample.data.len())
            .map_err(|_| Fmp4Error("sample of more than 4 GiB".to_owned()))?;
        Ok(TrunSample {
            duration: Some(sample.duration),
            size: Some(size),
            flags: Some(flags(sample.sync)),
            composition_time_offset: reordered.then_some(i64::from(sample.composition_offset)),
        })
    };
    let run = TrunBox {
        data_offset: Some(data_offset),
        first_sample_flags: None,
        samples: samples.iter().map(entry).collect::<Result<_, Fmp4Error>>()?,
    };
    Ok(MoofBox {
        mfhd_box: MfhdBox { sequence_number: sequence },
        traf_boxes: vec![TrafBox {
            tfhd_box: TfhdBox {
                track_id: TRACK_ID,
                base_data_offset: None,
                sample_description_index: None,
                default_sample_duration: empty,
                default_sample_size: None,
                default_sample_flags: None,
                duration_is_empty: empty.is_some(),
                default_base_is_moof: true,
            },
            tfdt_box: Some(TfdtBox { version: 1, base_media_decode_time: decode_time }),
            trun_boxes: if empty.is_some() { Vec::new() } else { vec![run] },
            unknown_boxes: Vec::new(),
        }],
        unknown_boxes: Vec::new(),
    })
}

/// ISO/IEC 14496-12 §8.8.3.1: depends on others or not, and is a sync sample or not.
const fn flags(sync: bool) -> SampleFlags {
    if sync {
        SampleFlags::from_fields(0, 2, 0, 0, 0, false, 0)
    } else {
        SampleFlags::from_fields(0, 1, 0, 0, 0, true, 0)
    }
}
