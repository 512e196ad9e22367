//! What a viewer that has turned hostile makes use of: the keys, names and numbers of
//! its own session.

use super::Viewer;
use crate::crowd::ice::Credentials;
use crate::crowd::secure::Identity;

impl Viewer {
    /// Seals a compound RTCP packet with the session's keys.
    pub(in crate::crowd) fn seal(&mut self, compound: &[u8]) -> Option<Vec<u8>> {
        self.keys.as_mut()?.seal_rtcp(compound).map(|sealed| sealed.to_vec())
    }

    /// SSRC of its reports.
    pub(in crate::crowd) fn own_ssrc(&self) -> u32 {
        self.setup.ssrc
    }

    /// The streams that it is sent, and the sequence number after the newest of each.
    pub(in crate::crowd) fn streams(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        let streams = [&self.video, &self.audio].into_iter().flatten();
        streams.map(|stream| (stream.ssrc, stream.reception.next() as u16))
    }

    /// What proves it to the server.
    pub(in crate::crowd) fn credentials(&self) -> Credentials {
        Credentials {
            local_ufrag: self.setup.ufrag.clone(),
            local_pwd: self.setup.pwd.clone(),
            remote_ufrag: self.setup.answer.ufrag.clone(),
            remote_pwd: self.setup.answer.pwd.clone(),
        }
    }

    /// Its cryptography.
    pub(in crate::crowd) fn identity(&self) -> &Identity {
        &self.identity
    }
}
