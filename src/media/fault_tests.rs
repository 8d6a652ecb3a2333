//! What the faulty drive breaks, on purpose and by seed.

use super::super::contract_tests::{completion, heap, payload, read, write};
use super::super::{AlignedBuf, MemDevice};
use super::*;

const SIZE: u64 = 1 << 20;

fn faulty(faults: Faults) -> FaultyDevice {
    FaultyDevice::new(Arc::new(MemDevice::inline(SIZE)), faults, 42)
}

#[test]
fn each_fault_is_what_it_says() {
    let bytes = payload(16_384, 1);
    let device = faulty(Faults { lost_write: 1.0, ..Faults::default() });
    write(&device, 0, &bytes).unwrap();
    assert!(read(&device, 0, 16_384).unwrap() == vec![0; 16_384]);

    device.set_faults(Faults { torn_write: 1.0, ..Faults::default() });
    write(&device, 0, &bytes).unwrap();
    assert!(read(&device, 0, 16_384).unwrap() == [&bytes[..8192], &[0; 8192]].concat());

    device.set_faults(Faults { bit_flip: 1.0, ..Faults::default() });
    write(&device, 0, &bytes).unwrap();
    let flipped = read(&device, 0, 16_384).unwrap();
    let bits: u32 = flipped.iter().zip(&bytes).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert_eq!(bits, 1);

    device.set_faults(Faults { read_error: 1.0, no_space: 1.0, ..Faults::default() });
    assert_eq!(read(&device, 0, 4096).unwrap_err().raw_os_error(), Some(5));
    assert_eq!(write(&device, 0, &bytes).unwrap_err().kind(), io::ErrorKind::StorageFull);
    device.set_faults(Faults { write_error: 1.0, ..Faults::default() });
    assert_eq!(write(&device, 0, &bytes).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn short_jobs_are_half_done_and_say_that_they_ended_early() {
    let (old, new) = (payload(16_384, 1), payload(16_384, 2));
    let device = faulty(Faults::default());
    write(&device, 0, &old).unwrap();
    device.set_faults(Faults { short_write: 1.0, short_read: 1.0, ..Faults::default() });
    assert_eq!(write(&device, 0, &new).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let (done, outcome) = completion();
    device.submit(Io::read(0, 16_384, Buffer::Heap(AlignedBuf::with_room_for(16_384)), done)).unwrap();
    let (buffer, result) = outcome.recv().unwrap();
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(buffer.span().to_vec() == [&new[..8192], &[0; 8192]].concat());
    device.set_faults(Faults::default());
    assert!(read(&device, 0, 16_384).unwrap() == [&new[..8192], &old[8192..]].concat());
}

/// A job whose end is counted.
fn submit(device: &FaultyDevice, ended: &Arc<AtomicU64>) {
    let ended = Arc::clone(ended);
    let done = Box::new(move |_, _| _ = ended.fetch_add(1, Ordering::SeqCst));
    device.submit(Io::read(0, 4096, heap(b""), done)).unwrap();
}

#[test]
fn held_completions_come_when_released_or_at_stop() {
    let device = faulty(Faults { held: 1.0, ..Faults::default() });
    let ended = Arc::default();
    submit(&device, &ended);
    assert_eq!(ended.load(Ordering::SeqCst), 0);
    assert_eq!((device.release_held(), ended.load(Ordering::SeqCst)), (1, 1));
    submit(&device, &ended);
    device.stop();
    assert_eq!(ended.load(Ordering::SeqCst), 2);
    // What is refused is not held back, or it would never end.
    let count = Arc::clone(&ended);
    let io = Io::read(0, 4096, heap(b""), Box::new(move |_, _| _ = count.fetch_add(1, Ordering::SeqCst)));
    device.submit(io).unwrap_err().complete(Err(io::Error::other("refused")));
    assert_eq!(ended.load(Ordering::SeqCst), 3);
}

#[test]
fn late_completions_come_after_so_many_more_jobs_and_others_overtake_them() {
    let device = faulty(Faults { late: 1.0, late_by: 3, ..Faults::default() });
    let (late, prompt) = (Arc::default(), Arc::default());
    submit(&device, &late);
    device.set_faults(Faults::default());
    for number in 1..=3 {
        assert_eq!(late.load(Ordering::SeqCst), 0, "{number}");
        submit(&device, &prompt);
        assert_eq!(prompt.load(Ordering::SeqCst), number);
    }
    assert_eq!(late.load(Ordering::SeqCst), 1);
}

#[test]
fn the_same_seed_gives_the_same_faults() {
    let run = |seed| {
        let faults = Faults { read_error: 0.2, bit_flip: 0.3, write_error: 0.1, lost_write: 0.3, ..Faults::default() };
        let device = FaultyDevice::new(Arc::new(MemDevice::inline(SIZE)), faults, seed);
        let step = |at: u64| {
            let written = write(&device, at % 8 * 4096, &payload(4096, at as usize)).is_ok();
            (written, read(&device, at % 8 * 4096, 4096).ok())
        };
        (0..200).map(step).collect::<Vec<_>>()
    };
    assert!(run(1) == run(1));
    assert!(run(1) != run(2));
}
