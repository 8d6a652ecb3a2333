//! What every device promises, asked of each body, and what the faulty one breaks on purpose.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use super::*;
use crate::vocab::{ByteCount, SlotClass, SlotId, TierShape};

const SIZE: u64 = 1 << 20;

type Outcome = (Buffer, io::Result<()>);

fn completion() -> (Completion, Receiver<Outcome>) {
    let (sender, receiver) = channel();
    let done = Box::new(move |buffer, result| sender.send((buffer, result)).unwrap());
    (done, receiver)
}

fn heap(bytes: &[u8]) -> Buffer {
    let mut buffer = AlignedBuf::with_room_for(u32::try_from(bytes.len()).unwrap());
    buffer[..bytes.len()].copy_from_slice(bytes);
    Buffer::Heap(buffer)
}

fn write(device: &dyn Device, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let (done, outcome) = completion();
    device.submit(Io::write(offset, u32::try_from(bytes.len()).unwrap(), heap(bytes), done)).unwrap();
    outcome.recv().unwrap().1
}

fn read(device: &dyn Device, offset: u64, len: u32) -> io::Result<Vec<u8>> {
    let (done, outcome) = completion();
    device.submit(Io::read(offset, len, Buffer::Heap(AlignedBuf::with_room_for(len)), done)).unwrap();
    let (buffer, result) = outcome.recv().unwrap();
    result.map(|()| buffer.bytes()[..len as usize].to_vec())
}

fn payload(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 7 + salt) % 253) as u8).collect()
}

/// The promises.
fn keeps_the_contract(device: &dyn Device) {
    assert_eq!(device.size(), SIZE);
    // What was written is read, at its place and nowhere else.
    for (number, len) in [(0_u64, 4096), (5, 4096), (10, 65_536), (40, 10_000)] {
        write(device, number * 4096, &payload(len, number as usize)).unwrap();
    }
    for (number, len) in [(0_u64, 4096), (5, 4096), (10, 65_536), (40, 10_000)] {
        assert!(read(device, number * 4096, len).unwrap() == payload(len as usize, number as usize));
    }
    assert!(read(device, 4096, 4096).unwrap() == vec![0; 4096]);
    // The last bytes belong to it, those after do not.
    write(device, SIZE - 4096, &payload(4096, 1)).unwrap();
    assert!(write(device, SIZE, &payload(4096, 1)).is_err());
    assert!(read(device, SIZE - 4096, 8192).is_err());
    assert!(read(device, 100, 4096).is_err());
    slots_move_without_a_copy(device);
    many_at_once_all_complete(device);
    device.stop();
    let (done, _) = completion();
    assert!(device.submit(Io::read(0, 4096, heap(b""), done)).is_err());
    device.stop();
}

/// A RAM slot is written out under its pin and read back into another one.
fn slots_move_without_a_copy(device: &dyn Device) {
    let arena = Arena::new(TierShape::carve(ByteCount(SIZE))).unwrap();
    let class = SlotClass::of_bytes(8192).unwrap();
    let slot = |index| SlotId { extent: 0, index };
    let mut writer = arena.writer(slot(0), class).unwrap();
    assert!(writer.write_at(0, &payload(5000, 3)));
    let pin = arena.pin(slot(0), class, writer.publish(), 5000).unwrap();
    let (done, outcome) = completion();
    device.submit(Io::write(64 * 4096, 5000, Buffer::Slot(pin), done)).unwrap();
    outcome.recv().unwrap().1.unwrap();
    assert_eq!(arena.pins(), 0);

    let (done, outcome) = completion();
    let fill = Buffer::Fill(arena.writer(slot(1), class).unwrap());
    device.submit(Io::read(64 * 4096, 5000, fill, done)).unwrap();
    let (Buffer::Fill(filled), Ok(())) = outcome.recv().unwrap() else { panic!("the slot comes back") };
    let pin = arena.pin(slot(1), class, filled.publish(), 5000).unwrap();
    assert!(pin[..] == payload(5000, 3));

    let (done, outcome) = completion();
    device.submit(Io::read(0, 4096, Buffer::Slot(pin), done)).unwrap();
    assert!(outcome.recv().unwrap().1.is_err(), "a pinned slot is not read into");
}

fn many_at_once_all_complete(device: &dyn Device) {
    let (sender, receiver) = channel();
    for number in 0..200_u64 {
        let sender = sender.clone();
        let done = Box::new(move |_, result: io::Result<()>| sender.send(result.is_ok()).unwrap());
        let job = if number % 2 == 0 { Io::read } else { Io::write };
        device.submit(job(number % 16 * 4096, 4096, heap(&payload(4096, 9)), done)).unwrap();
    }
    assert_eq!(receiver.iter().take(200).filter(|good| *good).count(), 200);
}

#[test]
fn memory_inline_keeps_the_contract() {
    keeps_the_contract(&MemDevice::inline(SIZE));
}

#[test]
fn memory_on_a_thread_keeps_the_contract() {
    keeps_the_contract(&MemDevice::threaded(SIZE).unwrap());
}

#[test]
fn a_slot_file_keeps_the_contract_and_its_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.kv");
    let device = PosixDevice::open(&path, SIZE, 3).unwrap();
    keeps_the_contract(&device);
    drop(device);
    let again = PosixDevice::open(&path, SIZE, 1).unwrap();
    assert!(read(&again, 40 * 4096, 10_000).unwrap() == payload(10_000, 40));
}

#[test]
fn a_faulty_device_without_faults_keeps_the_contract() {
    keeps_the_contract(&FaultyDevice::new(Arc::new(MemDevice::inline(SIZE)), Faults::default(), 1));
}

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
    device.set_faults(Faults { short_read: 1.0, write_error: 1.0, ..Faults::default() });
    assert_eq!(read(&device, 0, 4096).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(write(&device, 0, &bytes).unwrap_err().raw_os_error(), Some(5));
}

#[test]
fn held_completions_come_when_released_or_at_stop() {
    let device = faulty(Faults { held: 1.0, ..Faults::default() });
    let ended = Arc::new(Mutex::new(0));
    let submit = || {
        let ended = Arc::clone(&ended);
        let done = Box::new(move |_, _| *ended.lock().unwrap() += 1);
        device.submit(Io::read(0, 4096, heap(b""), done)).unwrap();
    };
    submit();
    assert_eq!(*ended.lock().unwrap(), 0);
    assert_eq!(device.release_held(), 1);
    assert_eq!(*ended.lock().unwrap(), 1);
    submit();
    device.stop();
    assert_eq!(*ended.lock().unwrap(), 2);
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
