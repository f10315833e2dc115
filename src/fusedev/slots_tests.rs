use super::*;

fn slots(waiting: usize) -> Arc<Slots> {
    Arc::new(Slots::create(waiting).unwrap())
}

/// As a successor finds it.
fn reopened(slots: &Slots) -> Arc<Slots> {
    Arc::new(Slots::open(slots.file.try_clone().unwrap(), &slots.id).unwrap())
}

/// A request of `length` bytes with `fill` in it.
fn request(length: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; length];
    bytes[..LENGTH].copy_from_slice(&u32::try_from(length).unwrap().to_ne_bytes());
    bytes
}

fn waiting(left: &Left) -> Vec<Vec<u8>> {
    left.waiting.iter().map(|(request, _)| request.clone()).collect()
}

#[test]
fn the_memory_has_this_form() {
    let slots = slots(4096);
    assert_eq!(length_of_writable(&slots.file), Some(4096 + 64 * 8192 + 4160 * 512));
    let mut bytes = [0; 40];
    pread(&slots.file, &mut bytes, 0).unwrap();
    assert_eq!(bytes[..16], *b"SCOSLOTS\x01\0\0\0\x40\x10\0\0");
    assert_eq!(bytes[16..32], slots.id);
    assert_eq!(bytes[32..36], crc32fast::hash(&bytes[..32]).to_le_bytes());
    assert_eq!(bytes[36..], [0; 4]);
    let ticket = slots.keep(&request(41, 7)).unwrap();
    slots.landing(3).unwrap().bytes()[..2].copy_from_slice(b"ab");
    pread(&slots.file, &mut bytes, 4096 + 64 * 8192).unwrap();
    assert_eq!(bytes[..6], [41, 0, 0, 0, 7, 7]);
    pread(&slots.file, &mut bytes, 4096 + 3 * 8192).unwrap();
    assert_eq!(&bytes[..2], b"ab");
    drop(ticket);
    pread(&slots.file, &mut bytes, 4096 + 64 * 8192).unwrap();
    assert_eq!(bytes[..6], [0, 0, 0, 0, 7, 7]);
}

#[test]
fn what_waits_is_left_until_its_ticket_goes() {
    let slots = slots(8);
    let (one, other) = (slots.keep(&request(80, 1)).unwrap(), slots.keep(&request(PLACE, 2)).unwrap());
    assert_eq!(waiting(&reopened(&slots).left().unwrap()), [request(80, 1), request(PLACE, 2)]);
    // Looking at it, and dropping it unanswered, are not the same: the tickets above cleared both places.
    assert_eq!(waiting(&reopened(&slots).left().unwrap()), Vec::<Vec<u8>>::new());
    let third = slots.keep(&request(40, 3)).unwrap();
    drop((one, other));
    third.leave();
    assert_eq!(waiting(&reopened(&slots).left().unwrap()), [request(40, 3)]);
}

#[test]
fn a_successor_gives_only_places_that_are_free() {
    let slots = slots(2);
    let tickets: Vec<_> = (0..10).map(|fill| slots.keep(&request(40, fill)).unwrap()).collect();
    tickets.into_iter().for_each(Ticket::leave);
    let next = reopened(&slots);
    let left = next.left().unwrap();
    assert_eq!(left.waiting.len(), 10);
    let more: Vec<_> = (0..56).map(|fill| next.keep(&request(40, fill)).unwrap()).collect();
    assert!(matches!(next.keep(&request(40, 1)), Err(PlaceError::Full(66))));
    drop(left);
    next.keep(&request(40, 1)).unwrap().leave();
    more.into_iter().for_each(Ticket::leave);
    assert_eq!(reopened(&next).left().unwrap().waiting.len(), 57);
}

#[test]
fn a_request_that_is_longer_than_a_place_is_refused() {
    let slots = slots(1);
    assert!(matches!(slots.keep(&request(PLACE + 1, 1)), Err(PlaceError::TooLong(513))));
    assert_eq!(reopened(&slots).left().unwrap().waiting.len(), 0);
}

#[test]
fn what_lies_in_a_landing_is_left_until_it_is_cleared() {
    let slots = slots(1);
    let mut landings: Vec<_> = (0..64).map(|number| slots.landing(number).unwrap()).collect();
    assert!(slots.landing(64).is_err());
    // Its tail reaches into the second page, whose beginning is no length.
    landings[5].bytes().copy_from_slice(&request(READ_BUFFER, 9));
    landings[63].bytes()[..40].copy_from_slice(&request(40, 8));
    let next = reopened(&slots);
    let left = next.left().unwrap();
    assert_eq!(left.landed, [(request(READ_BUFFER, 9), 5), (request(40, 8), 63)]);
    assert!(left.waiting.is_empty());
    next.clear_landing(5).unwrap();
    clear(landings[63].bytes());
    assert!(next.left().unwrap().landed.is_empty());
    assert_eq!(landings[5].bytes()[LENGTH..], request(READ_BUFFER, 9)[LENGTH..]);
}

#[test]
fn lengths_that_cannot_be_are_cut_to_what_is_there() {
    let slots = slots(1);
    let ticket = slots.keep(&request(PLACE, 1)).unwrap();
    pwrite(&slots.file, &u32::MAX.to_ne_bytes(), place_at(ticket.place)).unwrap();
    ticket.leave();
    slots.landing(0).unwrap().bytes().fill(0xff);
    let left = reopened(&slots).left().unwrap();
    assert_eq!((left.waiting[0].0.len(), left.landed[0].0.len()), (PLACE, READ_BUFFER));
}

#[test]
fn nothing_but_the_sessions_own_memory_is_opened() {
    let slots = slots(3);
    let open = |id: &SlotsId| Slots::open(slots.file.try_clone().unwrap(), id).map(|_| ());
    assert_eq!(open(&slots.id), Ok(()));
    assert_eq!(open(&[0; 16]), Err(SlotsError::Foreign));
    for at in 0..HEADER_USED as u64 {
        let mut byte = [0];
        pread(&slots.file, &mut byte, at).unwrap();
        pwrite(&slots.file, &[byte[0] ^ 1], at).unwrap();
        let expected = if (8..12).contains(&at) {
            SlotsError::Version(VERSION ^ (1 << (8 * (at - 8))))
        } else {
            SlotsError::Damaged
        };
        assert_eq!(open(&slots.id), Err(expected), "{at}");
        pwrite(&slots.file, &byte, at).unwrap();
    }
    assert_eq!(open(&slots.id), Ok(()));
    // A header that is right, of a file that is not.
    for (places, length) in [(67, 8192), (0, length(0)), (MAX_PLACES + 1, length(MAX_PLACES + 1))] {
        let short = writable_memory_file("test", length).unwrap();
        pwrite(&short, &header(places, &slots.id), 0).unwrap();
        assert_eq!(Slots::open(short, &slots.id).map(|_| ()), Err(SlotsError::Damaged), "{places}");
    }
    let record = crate::sys::fdstore::memory_file("test", &header(67, &slots.id)).unwrap();
    assert_eq!(Slots::open(record, &slots.id).map(|_| ()), Err(SlotsError::Damaged));
}

#[test]
fn memory_is_taken_only_for_what_is_used() {
    let slots = slots(65_536);
    let tickets: Vec<_> = (0..8).map(|fill| slots.keep(&request(300, fill)).unwrap()).collect();
    // Header and one page of eight places.
    assert_eq!(rustix::fs::fstat(&slots.file).unwrap().st_blocks * 512, 2 * 4096);
    drop(tickets);
    drop((0..8).map(|fill| slots.keep(&request(300, fill)).unwrap()).collect::<Vec<_>>());
    assert_eq!(rustix::fs::fstat(&slots.file).unwrap().st_blocks * 512, 2 * 4096);
}
