//! Requests on their way out, put together so that few packets carry them.
//!
//! SFTP is a stream of bytes in a channel: where a request begins has nothing to do with where an
//! SSH packet does. A packet costs both sides a cipher's start, and the server a wake-up or two for
//! whatever it brings; so the head of a WRITE shares a packet with the beginning of its data, and
//! small requests that are ready together share one.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// What OpenSSH takes in one packet of a channel (`CHAN_SES_PACKET_DEFAULT`).
const PACKET: usize = 32 << 10;

/// Blocks in the order of the stream; `tail` is the last and can still grow.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    blocks: VecDeque<Bytes>,
    tail: BytesMut,
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.tail.is_empty()
    }

    /// Whether another request would still go into the packet that is sent next.
    pub(super) fn has_room(&self) -> bool {
        self.blocks.is_empty() && self.tail.len() < PACKET / 2
    }

    /// A request: what comes before the data, and the data. Of that only as much is copied as fills
    /// a packet.
    pub(super) fn put(&mut self, head: &[u8], data: Option<Bytes>) {
        if self.tail.len() + head.len() > PACKET {
            self.close_tail();
        }
        self.tail.extend_from_slice(head);
        let Some(mut data) = data else { return };
        let room = PACKET.saturating_sub(self.tail.len());
        let first = data.split_to(room.min(data.len()));
        self.tail.extend_from_slice(&first);
        if !data.is_empty() {
            self.close_tail();
            self.blocks.push_back(data);
        }
    }

    /// What goes next.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.blocks.is_empty() {
            self.close_tail();
        }
        self.blocks.pop_front()
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            self.blocks.push_back(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_large_write_begins_in_the_packet_of_its_head() {
        let data = Bytes::from(vec![7; 255 << 10]);
        let mut outbox = Outbox::default();
        outbox.put(&[1; 29], Some(data.clone()));
        assert!(!outbox.has_room());
        let first = outbox.pop().unwrap();
        assert_eq!(first.len(), PACKET);
        let rest = outbox.pop().unwrap();
        assert_eq!(rest.len(), data.len() + 29 - PACKET);
        // Not copied: a part of the same memory.
        assert_eq!(rest.as_ptr(), data[PACKET - 29..].as_ptr());
        assert!(outbox.is_empty());
    }

    #[test]
    fn small_requests_share_a_packet() {
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            assert!(outbox.has_room());
            outbox.put(&[1; 50], Some(Bytes::from_static(&[2; 10])));
        }
        assert_eq!(outbox.pop().unwrap().len(), 6000);
        assert_eq!(outbox.pop(), None);
    }

    proptest! {
        #[test]
        fn the_stream_is_the_requests_one_after_the_other(
            requests in prop::collection::vec((0_usize..70_000, prop::option::of(0_usize..70_000), any::<bool>()), 0..12),
        ) {
            let (mut outbox, mut wanted, mut sent) = (Outbox::default(), Vec::new(), Vec::new());
            for (at, (head, data, pops)) in requests.into_iter().enumerate() {
                let head = vec![at as u8; head];
                let data = data.map(|len| Bytes::from(vec![0x80 | at as u8; len]));
                wanted.extend_from_slice(&head);
                wanted.extend(data.iter().flatten());
                outbox.put(&head, data);
                if pops {
                    sent.extend(outbox.pop().into_iter().flatten());
                }
            }
            while !outbox.is_empty() {
                let block = outbox.pop().unwrap();
                prop_assert!(!block.is_empty());
                sent.extend(block);
            }
            prop_assert_eq!(wanted, sent);
        }
    }
}
