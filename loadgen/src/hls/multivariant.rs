//! Multivariant playlists (rfc8216bis §4.4.6): which renditions there are, and which
//! one a client takes.

use super::attributes::{Attributes, Malformed};
use super::playlist::{MAX_TEXT, ReadError};

/// Which video rendition to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first listed, as a player does that knows nothing of its network.
    #[default]
    First,
    /// The one of the highest BANDWIDTH.
    Highest,
    /// The one of the lowest BANDWIDTH.
    Lowest,
}

/// `EXT-X-STREAM-INF`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Peak bits per second.
    pub bandwidth: u64,
    /// Whether it has a picture.
    pub picture: bool,
    /// Group of its audio renditions.
    pub audio: Option<String>,
    /// Its playlist.
    pub uri: String,
}

/// `EXT-X-MEDIA:TYPE=AUDIO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audio {
    /// GROUP-ID.
    pub group: String,
    /// DEFAULT.
    pub default: bool,
    /// Its playlist; without one the sound is in the variant.
    pub uri: Option<String>,
}

/// A multivariant playlist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Multivariant {
    /// As listed; at least one.
    pub variants: Vec<Variant>,
    /// As listed.
    pub audio: Vec<Audio>,
}

impl Multivariant {
    /// Reads a playlist.
    ///
    /// # Errors
    /// [`ReadError`], with the first line that is wrong.
    pub fn read(text: &str) -> Result<Self, ReadError> {
        if text.len() > MAX_TEXT {
            return Err(ReadError { line: 0, what: "the playlist is too long" });
        }
        let mut out = Self::default();
        let mut pending: Option<Variant> = None;
        for (number, line) in text.lines().enumerate() {
            let error = |what| ReadError { line: number + 1, what };
            let malformed = |Malformed| error("the attributes are malformed");
            let line = line.trim_end();
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXTM3U" if number == 0 => {}
                _ if number == 0 => return Err(error("a playlist begins with #EXTM3U")),
                "#EXT-X-STREAM-INF" if pending.is_some() => {
                    return Err(error("a variant without its URI"));
                }
                "#EXT-X-STREAM-INF" => {
                    let variant = variant(value).map_err(malformed)?;
                    pending = Some(variant.ok_or(error("BANDWIDTH is missing"))?);
                }
                "#EXT-X-MEDIA" => out.audio.extend(audio(value).map_err(malformed)?),
                "#EXTINF" | "#EXT-X-TARGETDURATION" => {
                    return Err(error("this is a media playlist"));
                }
                "" => {}
                _ if line.starts_with('#') => {}
                _ => {
                    let variant = pending.take().ok_or(error("a URI without EXT-X-STREAM-INF"))?;
                    out.variants.push(Variant { uri: line.to_owned(), ..variant });
                }
            }
        }
        if pending.is_some() || out.variants.is_empty() {
            return Err(ReadError { line: 0, what: "there is no variant" });
        }
        Ok(out)
    }

    /// The variant to take, and the audio rendition that belongs to it: the default one
    /// of its group, or the first.
    pub fn choose(&self, choice: Choice) -> Option<(&Variant, Option<&Audio>)> {
        let pictures = self.variants.iter().any(|variant| variant.picture);
        let mut able = self.variants.iter().filter(|variant| variant.picture == pictures);
        let variant = match choice {
            Choice::First => able.next(),
            Choice::Highest => able.max_by_key(|variant| variant.bandwidth),
            Choice::Lowest => able.min_by_key(|variant| variant.bandwidth),
        }?;
        let of_group = |audio: &&Audio| Some(&audio.group) == variant.audio.as_ref();
        let mut group = self.audio.iter().filter(of_group);
        let default = group.clone().find(|audio| audio.default).or_else(|| group.next());
        Some((variant, default.filter(|audio| audio.uri.is_some())))
    }
}

/// A variant whose URI is on the next line; `None` without a BANDWIDTH.
fn variant(value: &str) -> Result<Option<Variant>, Malformed> {
    let list = Attributes::read(value)?;
    let codecs = list.text("CODECS")?.unwrap_or_default();
    let video = ["avc", "hvc", "hev", "av01", "vp0", "dvh"];
    let picture = list.word("RESOLUTION")?.is_some()
        || codecs.split(',').any(|codec| video.iter().any(|name| codec.trim().starts_with(name)));
    let audio = list.text("AUDIO")?.map(str::to_owned);
    let bandwidth = list.integer("BANDWIDTH")?;
    Ok(bandwidth.map(|bandwidth| Variant { bandwidth, picture, audio, uri: String::new() }))
}

/// An audio rendition; `None` for one of another kind.
fn audio(value: &str) -> Result<Option<Audio>, Malformed> {
    let list = Attributes::read(value)?;
    let group = list.text("GROUP-ID")?.ok_or(Malformed)?.to_owned();
    let (default, uri) = (list.flag("DEFAULT")?, list.text("URI")?.map(str::to_owned));
    Ok((list.word("TYPE")? == Some("AUDIO")).then_some(Audio { group, default, uri }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"1\",URI=\"a1.m3u8\"\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"2\",DEFAULT=YES,URI=\"a2.m3u8\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"Opus\",AUDIO=\"a\"\na2.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=500000,RESOLUTION=640x360,AUDIO=\"a\"\nlow.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=900000,CODECS=\"avc1.64001f,Opus\",AUDIO=\"b\"\nhigh.m3u8\n";

    #[test]
    fn a_client_takes_a_picture_and_its_sound() {
        let list = Multivariant::read(TWO).unwrap();
        let chosen = |choice| {
            let (variant, audio) = list.choose(choice).unwrap();
            (variant.uri.as_str(), audio.and_then(|audio| audio.uri.as_deref()))
        };
        assert_eq!(chosen(Choice::First), ("low.m3u8", Some("a2.m3u8")));
        assert_eq!(chosen(Choice::Lowest), ("low.m3u8", Some("a2.m3u8")));
        assert_eq!(chosen(Choice::Highest), ("high.m3u8", None));
    }

    #[test]
    fn sound_alone_is_taken_when_there_is_nothing_else() {
        let text = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=64000,CODECS=\"Opus\"\na.m3u8\n";
        let list = Multivariant::read(text).unwrap();
        assert_eq!(list.choose(Choice::First).unwrap().0.uri, "a.m3u8");
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for bad in [
            "",
            "#EXTM3U\n",
            "#EXTM3U\nv.m3u8\n",
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n",
            "#EXTM3U\n#EXT-X-STREAM-INF:CODECS=\"x\"\nv\n",
            "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n#EXT-X-STREAM-INF:BANDWIDTH=2\nv\n",
            "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO\n",
            "#EXTM3U\n#EXT-X-TARGETDURATION:2\n",
        ] {
            assert!(Multivariant::read(bad).is_err(), "{bad}");
        }
    }
}
