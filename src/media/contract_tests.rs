//! What every device promises, asked of each body, and of each again through a faulty one without faults.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::slot_file::SlotFile;
use super::*;
use crate::vocab::{ByteCount, SlotClass, SlotId, TierShape};
use crate::watch::Watch;

const SIZE: u64 = 1 << 20;
/// Bytes in flight.
const BOUND: u64 = 128 << 10;

type Outcome = (Buffer, io::Result<()>);

pub(super) fn completion() -> (Completion, Receiver<Outcome>) {
    let (sender, receiver) = channel();
    let done = Box::new(move |buffer, result| sender.send((buffer, result)).unwrap());
    (done, receiver)
}

pub(super) fn heap(bytes: &[u8]) -> Buffer {
    let mut buffer = AlignedBuf::with_room_for(u32::try_from(bytes.len()).unwrap());
    buffer[..bytes.len()].copy_from_slice(bytes);
    Buffer::Heap(buffer)
}

pub(super) fn write(device: &dyn Device, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let (done, outcome) = completion();
    device.submit(Io::write(offset, u32::try_from(bytes.len()).unwrap(), heap(bytes), done)).unwrap();
    outcome.recv().unwrap().1
}

pub(super) fn read(device: &dyn Device, offset: u64, len: u32) -> io::Result<Vec<u8>> {
    let (done, outcome) = completion();
    device.submit(Io::read(offset, len, Buffer::Heap(AlignedBuf::with_room_for(len)), done)).unwrap();
    let (buffer, result) = outcome.recv().unwrap();
    result.map(|()| buffer.span().to_vec()[..len as usize].to_vec())
}

pub(super) fn payload(len: usize, salt: usize) -> Vec<u8> {
    (0..len).map(|at| ((at * 7 + salt) % 253) as u8).collect()
}

fn arena() -> Arc<Arena> {
    Arena::new(TierShape::carve(ByteCount(SIZE))).unwrap()
}

fn slot_file(path: &Path, size: u64, is_direct: bool) -> SlotFile {
    let mut file = SlotFile::open(path, size, Duration::ZERO).unwrap();
    if !is_direct {
        file.go_buffered("so that it is tried".into()).unwrap();
    }
    file
}

/// `None`, with a word on stderr, where this host has no io_uring.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn uring(name: &str, file: &SlotFile, arena: Option<Arc<Arena>>) -> Option<UringDevice> {
    UringDevice::start(name, file, BOUND, arena, &Watch::default())
        .inspect_err(|refusal| eprintln!("skipped: {}", refusal.sentence()))
        .ok()
}

/// Every body that works on a file, in `folder`.
fn on_files(folder: &Path, size: u64, arena: &Arc<Arena>) -> Vec<Arc<dyn Device>> {
    let mut bodies: Vec<Arc<dyn Device>> = Vec::new();
    for is_direct in [true, false] {
        let file = slot_file(&folder.join(format!("posix-{is_direct}")), size, is_direct);
        bodies.push(Arc::new(PosixDevice::start(&file, 3, BOUND, None, &Watch::default()).unwrap()));
        for registers in [true, false] {
            let file = slot_file(&folder.join(format!("uring-{is_direct}-{registers}")), size, is_direct);
            let arena = registers.then(|| Arc::clone(arena));
            bodies.extend(uring("test", &file, arena).map(|device| Arc::new(device) as Arc<dyn Device>));
        }
    }
    bodies
}

/// Every body there is.
fn bodies(folder: &Path, arena: &Arc<Arena>) -> Vec<Arc<dyn Device>> {
    let mut bodies = on_files(folder, SIZE, arena);
    bodies.push(Arc::new(MemDevice::inline(SIZE)));
    bodies.push(Arc::new(MemDevice::threaded(SIZE).unwrap()));
    bodies
}

/// The promises.
fn keeps_the_contract(device: &dyn Device, arena: &Arc<Arena>) {
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
    // Nothing is quickly done, and more than may be in flight is done all the same.
    write(device, 0, &[]).unwrap();
    write(device, 0, &payload(2 * BOUND as usize, 2)).unwrap();
    assert!(read(device, 0, 2 * BOUND as u32).unwrap() == payload(2 * BOUND as usize, 2));
    slots_move_without_a_copy(device, arena);
    many_at_once_all_complete(device);
    let before = device.gauges();
    assert_eq!((before.queued, before.inflight_bytes), (0, 0), "{}", device.kind());
    write(device, 0, &payload(4097, 1)).unwrap();
    read(device, 0, 4096).unwrap();
    let after = device.gauges();
    assert_eq!((after.written_bytes - before.written_bytes, after.read_bytes - before.read_bytes), (8192, 4096));
    device.stop();
    let (done, _) = completion();
    assert!(device.submit(Io::read(0, 4096, heap(b""), done)).is_err());
    device.stop();
}

/// A RAM slot is written out under its pin and read back into another one, often enough that its segment is registered.
fn slots_move_without_a_copy(device: &dyn Device, arena: &Arc<Arena>) {
    let class = SlotClass::of_bytes(8192).unwrap();
    let slot = |index| SlotId { extent: 0, index };
    for round in 0..40 {
        let mut writer = arena.writer(slot(0), class).unwrap();
        assert!(writer.write_at(0, &payload(5000, round)));
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
        assert!(pin[..] == payload(5000, round));

        let (done, outcome) = completion();
        device.submit(Io::read(0, 4096, Buffer::Slot(pin), done)).unwrap();
        assert!(outcome.recv().unwrap().1.is_err(), "a pinned slot is not read into");
        assert!(arena.retire(slot(0)) && arena.retire(slot(1)));
    }
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
fn every_body_keeps_the_contract() {
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    for device in bodies(folder.path(), &arena) {
        keeps_the_contract(&*device, &arena);
    }
}

#[test]
fn every_body_keeps_the_contract_behind_a_faulty_one_without_faults() {
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    for device in bodies(folder.path(), &arena) {
        keeps_the_contract(&FaultyDevice::new(device, Faults::default(), 1), &arena);
    }
}

#[test]
fn one_body_reads_what_another_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("0.kv");
    for (number, (writes, reads)) in
        [(DeviceEngine::Auto, DeviceEngine::Posix), (DeviceEngine::Posix, DeviceEngine::Auto)].into_iter().enumerate()
    {
        let with = |engine| open(&path, SIZE, DeviceOptions { engine, ..DeviceOptions::default() }).unwrap();
        write(&*with(writes), 40 * 4096, &payload(10_000, number)).unwrap();
        assert!(read(&*with(reads), 40 * 4096, 10_000).unwrap() == payload(10_000, number));
    }
}

#[test]
fn segments_of_ram_are_registered_once_they_are_used() {
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    let file = slot_file(&folder.path().join("0.kv"), SIZE, true);
    let Some(device) = uring("test", &file, Some(Arc::clone(&arena))) else { return };
    assert_eq!((device.gauges().registered_bytes, device.kind()), (0, "io_uring, O_DIRECT"));
    // The pages are called for by a thread of its own; until they are there, jobs go on without.
    while device.gauges().registered_bytes == 0 {
        assert_eq!(device.drawback(), None);
        slots_move_without_a_copy(&device, &arena);
    }
    assert_eq!(device.gauges().registered_bytes, SIZE / 16);
    assert_eq!(device.kind(), "io_uring, O_DIRECT, registered buffers");
    slots_move_without_a_copy(&device, &arena);
}

#[test]
fn bytes_in_flight_stay_within_the_bound_and_a_larger_job_goes_alone() {
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    for device in on_files(folder.path(), SIZE, &arena) {
        many_at_once_all_complete(&*device);
        let (sender, receiver) = channel();
        for number in 0..64_u64 {
            let sender = sender.clone();
            let done = Box::new(move |_, result: io::Result<()>| sender.send(result.is_ok()).unwrap());
            let job = if number % 3 == 0 { Io::write } else { Io::read };
            device.submit(job(0, 48 << 10, heap(&[0; 48 << 10]), done)).unwrap();
        }
        assert_eq!(receiver.iter().take(64).filter(|good| *good).count(), 64);
        assert!(device.gauges().inflight_bytes_peak <= BOUND, "{}: {:?}", device.kind(), device.gauges());
        write(&*device, 0, &payload(3 * BOUND as usize, 1)).unwrap();
        assert_eq!(device.gauges().inflight_bytes_peak, 3 * BOUND);
    }
}

/// Keeps a queue of writes that is never empty, and reads beside it. A read that waited for the queue would see about as
/// many writes end as are queued; how the threads of a busy host are scheduled may make any single one of them late.
#[test]
fn reads_overtake_queued_writes() {
    const QUEUED: u64 = 200;
    struct Writer {
        device: Arc<dyn Device>,
        ended: AtomicU64,
        stop: AtomicBool,
    }
    fn go_on(writer: Arc<Writer>, buffer: Buffer) {
        let device = Arc::clone(&writer.device);
        let done = Box::new(move |buffer, result: io::Result<()>| {
            result.unwrap();
            writer.ended.fetch_add(1, Ordering::SeqCst);
            if !writer.stop.load(Ordering::SeqCst) {
                go_on(writer, buffer);
            }
        });
        device.submit(Io::write(0, BOUND as u32 / 4, buffer, done)).unwrap();
    }
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    let mut devices = on_files(folder.path(), SIZE, &arena);
    devices.push(Arc::new(MemDevice::threaded(SIZE).unwrap()));
    for device in devices {
        let writer = Arc::new(Writer { device, ended: AtomicU64::new(0), stop: AtomicBool::new(false) });
        for _ in 0..QUEUED {
            go_on(Arc::clone(&writer), heap(&[1; BOUND as usize / 4]));
        }
        let waited = |_| {
            let before = writer.ended.load(Ordering::SeqCst);
            read(&*writer.device, SIZE / 2, 4096).unwrap();
            writer.ended.load(Ordering::SeqCst) - before
        };
        let least = (0..20).map(waited).min().unwrap();
        writer.stop.store(true, Ordering::SeqCst);
        assert!(least < QUEUED / 2, "{}: at least {least} writes went first", writer.device.kind());
        writer.device.stop();
    }
}

#[test]
fn a_file_truncated_from_outside_gives_errors_and_then_works_again() {
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    for (number, device) in on_files(folder.path(), SIZE, &arena).into_iter().enumerate() {
        write(&*device, 0, &payload(SIZE as usize, number)).unwrap();
    }
    for (number, entry) in std::fs::read_dir(folder.path()).unwrap().enumerate() {
        let path = entry.unwrap().path();
        let device: Arc<dyn Device> = if number % 2 == 0 {
            Arc::new(PosixDevice::open(&path, SIZE, 2).unwrap())
        } else {
            open(&path, SIZE, DeviceOptions::default()).unwrap()
        };
        std::fs::File::options().write(true).open(&path).unwrap().set_len(SIZE / 2 + 100).unwrap();
        let before = read(&*device, 0, 4096).unwrap();
        for (offset, len) in [(SIZE / 2, 8192), (SIZE - 4096, 4096), (0, SIZE as u32), (SIZE / 2 - 4096, 16_384)] {
            let error = read(&*device, offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{}: {offset}, {len}", device.kind());
        }
        assert!(read(&*device, 0, 4096).unwrap() == before);
        write(&*device, SIZE - 4096, &payload(4096, 3)).unwrap();
        assert!(read(&*device, SIZE - 4096, 4096).unwrap() == payload(4096, 3));
    }
}

#[test]
fn stop_ends_every_job_once_and_one_that_comes_too_late_comes_back() {
    const JOBS: usize = 300;
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    for device in bodies(folder.path(), &arena) {
        let ended: Arc<Vec<AtomicU32>> = Arc::new((0..JOBS).map(|_| AtomicU32::new(0)).collect());
        let refused = Mutex::new(vec![0; JOBS]);
        thread::scope(|scope| {
            for half in 0..2 {
                let (device, ended, refused) = (&device, &ended, &refused);
                scope.spawn(move || {
                    for number in (half..JOBS).step_by(2) {
                        let ended = Arc::clone(ended);
                        let done = Box::new(move |_, _| _ = ended[number].fetch_add(1, Ordering::SeqCst));
                        let job = if number % 3 == 0 { Io::read } else { Io::write };
                        if device.submit(job(number as u64 % 16 * 4096, 4096, heap(&[2; 4096]), done)).is_err() {
                            refused.lock().unwrap()[number] = 1;
                        }
                    }
                });
            }
            while ended.iter().all(|times| times.load(Ordering::SeqCst) == 0) {
                thread::yield_now();
            }
            device.stop();
        });
        for (times, refused) in ended.iter().zip(refused.into_inner().unwrap()) {
            assert_eq!(times.load(Ordering::SeqCst) + refused, 1, "{}", device.kind());
        }
    }
}

#[test]
fn a_completion_may_drop_the_last_handle_of_its_device() {
    let (folder, arena) = (tempfile::tempdir().unwrap(), arena());
    for device in on_files(folder.path(), SIZE, &arena) {
        let (sender, receiver) = channel();
        let (gate, wait) = channel::<()>();
        let last = Arc::clone(&device);
        let done = Box::new(move |_: Buffer, _: io::Result<()>| {
            wait.recv().unwrap();
            drop(last);
            sender.send(()).unwrap();
        });
        device.submit(Io::read(0, 4096, heap(b""), done)).unwrap();
        drop(device);
        gate.send(()).unwrap();
        receiver.recv().unwrap();
    }
    // And its threads end, or the files would stay locked.
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        SlotFile::open(&entry.unwrap().path(), SIZE, Duration::from_secs(10)).unwrap();
    }
}

/// Clock ticks of CPU that the threads of this name have used: `utime` and `stime` of their stat files.
fn ticks(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    let of_thread = |stat: String| {
        let (head, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        head.contains(name).then(|| fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap())
    };
    let found: Vec<u64> = stats.filter_map(of_thread).collect();
    // Its ring and the two that report; a new thread gives itself its name.
    if found.len() < 3 { ticks(name) } else { found.iter().sum() }
}

#[test]
fn an_idle_drive_uses_no_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let file = slot_file(&folder.path().join("0.kv"), SIZE, true);
    let Some(device) = uring("idle", &file, None) else { return };
    for is_used in [false, true] {
        if is_used {
            many_at_once_all_complete(&device);
        }
        let before = ticks("(idle-");
        thread::sleep(Duration::from_millis(300));
        // Spinning would be 30 of them.
        let used = ticks("(idle-") - before;
        assert!(used <= 3, "{used} ticks while idle");
    }
}
