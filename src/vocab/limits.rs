//! Every limit of the house, each with its reason. Nothing queues, grows or waits without one of these.

use std::time::Duration;

/// Slots, extents and device offsets are multiples of this: what every NVMe drive and file system takes for O_DIRECT.
pub const ALIGNMENT: u64 = 4096;
/// An extent is at most 1 GiB: the most that the kernel registers as one I/O buffer.
pub const EXTENT_BYTES_MAX: u64 = 1 << 30;
/// A tier has at least 16 extents, so that a new namespace does not wait for a large share of it to be emptied.
pub const EXTENTS_MIN: u32 = 16;
/// Extents are numbered with 16 bits: 64 TiB a tier.
pub const EXTENTS_MAX: u32 = 1 << 16;
/// Drives of a host: what a GPU server has bays for.
pub const DRIVES_MAX: usize = 16;
/// Slots of an extent are numbered with 16 bits.
pub const SLOTS_PER_EXTENT_MAX: u32 = 1 << 16;
/// Blocks that a host knows: 64 TiB in 64 KiB slots. Their records would take 130 GB of RAM.
pub const BLOCKS_MAX: u32 = 1 << 30;

/// A payload is at most 64 MiB: 64 tokens of the widest published model (20 MiB) with room to spare.
pub const PAYLOAD_BYTES_MAX: u32 = 64 << 20;
/// Tokens of a block.
pub const BLOCK_TOKENS_MAX: u32 = 512;
/// Smallest block of tokens that an engine uses.
pub const BLOCK_TOKENS_MIN: u32 = 16;
/// Blocks of one request: a million-token prompt in 16-token blocks.
pub const REQUEST_BLOCKS_MAX: usize = 65_536;
/// Keys that a request hashes, or looks up, before others of its thread have their turn: 100 to 400 microseconds.
pub const KEYS_AT_ONCE: usize = 2_048;
/// Bytes of an engine's own key.
pub const ENGINE_KEY_BYTES_MIN: usize = 8;
/// Bytes of an engine's own key.
pub const ENGINE_KEY_BYTES_MAX: usize = 128;
/// Bytes of a name or id given from outside.
pub const WORD_BYTES_MAX: usize = 128;
/// Labels of a settled request: enough for a billing class, a priority and an api key, not for free text.
pub const LABELS_MAX: usize = 16;
/// Retention classes of one settle: twice as many as any provider prices.
pub const WRITTEN_CLASSES_MAX: usize = 8;
/// Bytes of a multimodal or adapter digest.
pub const DIGEST_BYTES_MAX: usize = 64;
/// Namespaces of a data folder. Fleets run tens of layouts at once.
pub const NAMESPACES_MAX: usize = 4_096;
/// Tenants of a data folder: numbered with 16 bits in every index row.
pub const ACCOUNTS_MAX: usize = 65_535;
/// Accounts that have a quota: for each that is above its share an eviction looks at one block more.
pub const QUOTAS_MAX: usize = 1_024;
/// Orders of going of one tier: one for each size class, and one for each account with a quota and class that it uses. Past
/// it an account's blocks go in the common one, still within its share and limit.
pub const LISTS_MAX: u16 = 8_192;
/// Blocks that have gone and that a policy remembers, for each that it has: the long gaps between turns are learnt from them.
pub const GHOSTS_PER_BLOCK: usize = 8;
/// At least, for tiers of a few hundred blocks.
pub const GHOSTS_MIN: usize = 1 << 16;
/// At most: 25 MB. A tier that is larger remembers by having.
pub const GHOSTS_MAX: usize = 1 << 19;
/// Keys by which a policy compares two orders: 2 MB each. Of larger tiers a share that is as large.
pub const SHADOW_BLOCKS: usize = 1 << 14;
/// Of a tier, all shares together: the rest is what accounts without one live in, and what keeps an eviction short.
pub const SHARES_OF_HUNDRED: u64 = 80;
/// The longest lifetime that a block may be promised, or given: a leap year. Nothing cached is worth more.
pub const LIFETIME_MAX: Duration = Duration::from_secs(366 * 86_400);
/// How long a promise of a lifetime may wait for its blocks to be written: a full write queue on a slow drive.
pub const KEEP_MAX: Duration = Duration::from_secs(10);
/// How often it looks: a fraction of what a drive takes to write a long prompt.
pub const KEEP_LOOK_EVERY: Duration = Duration::from_millis(4);
/// Blocks that one tick lets go because their time is over, or their account is above a lowered limit: a millisecond.
pub const EXPIRED_A_TICK: usize = 1_024;

/// Processes connected at once: a host has at most tens of ranks; a thousand leaves room for tools.
pub const SESSIONS_MAX: usize = 1_024;
/// Regions that one session attaches: a host pool for each NUMA node and a few more.
pub const REGIONS_PER_SESSION_MAX: usize = 16;
/// Descriptors that a session has handed over and not attached: it attaches each at once.
pub const OFFERED_PER_SESSION_MAX: usize = 4;
/// Staging memory of one session: what a rank stores while the daemon copies what it stored before.
pub const STAGING_BYTES_MAX: u64 = 1 << 30;
/// Staging memory of all sessions: eight ranks with half of that each.
pub const STAGING_TOTAL_BYTES_MAX: u64 = 4 << 30;
/// Reservations of one session that are neither committed nor given up.
pub const RESERVATIONS_PER_SESSION_MAX: usize = 256;
/// Tickets of one engine instance: as many as it may have leases.
pub const TICKETS_PER_INSTANCE_MAX: usize = LEASES_PER_INSTANCE_MAX;
/// A ticket's news are left this far apart, so that a thousand of them do not wake their reader for every block.
pub const TICKET_NEWS_EVERY: Duration = Duration::from_millis(2);
/// Tickets may hold this part of RAM with what was promoted for requests that still wait; the others wait for their turn.
pub const TICKETS_RAM_SHARE: u64 = 2;
/// Bytes a second that a drive is taken to read until it was seen: a slow NVMe drive.
pub const NVME_SPEED_GUESS: f64 = 1e9;
/// Bytes a second at which a block in RAM is taken to reach an engine: gRPC over a Unix socket on two slow cores. A worker
/// of the same host gets it three times as fast; to take the lesser wrongs a hit only where prefill is faster than memory.
pub const RAM_SPEED_GUESS: f64 = 3e9;
/// Leases of one engine instance: more than any scheduler's waiting queue.
pub const LEASES_PER_INSTANCE_MAX: usize = 16_384;
/// An instance may pin one in so many of RAM's blocks, counted for each of its leases, before a lease of it may be ended to
/// make room for others: half, so that one instance can use a host that it has to itself.
pub const PIN_BUDGET_SHARE: u64 = 2;
/// And only one that was neither granted nor renewed for this long: three times a load's usual deadline.
pub const PIN_GRACE: Duration = Duration::from_secs(30);
/// Leases ended for the sake of one block: many may lie on one chain.
pub const LEAKED_AT_ONCE: usize = 16;
/// A lease ends by itself after this unless renewed; the longest that a caller may ask for.
pub const LEASE_TTL_MAX: Duration = Duration::from_secs(600);
/// A lease's life where the caller names none.
pub const LEASE_TTL_DEFAULT: Duration = Duration::from_secs(60);
/// Blocks for which a put asks a slot ahead of their bytes.
pub const PUT_AHEAD: usize = 16;
/// A put that receives nothing for this long is over, and its reservations end.
pub const PUT_IDLE_MAX: Duration = Duration::from_secs(30);

/// Messages waiting for the planner. Each is handled in microseconds; past this, callers wait, and so do their clients.
pub const PLANNER_INBOX: usize = 4_096;
/// Blocks of used chains that are touched between two looks at the inbox: at most 50 microseconds, by the slowest policy.
pub const TOUCHED_AT_ONCE: usize = 32;
/// Used chains that wait to be touched: past it, none is used before some of them are.
pub const UNTOUCHED_CHAINS_MAX: usize = 64;
/// Long chains that are offered in parts at the same time: past it, no message is taken in before one is through.
pub const OFFERS_MAX: usize = 64;
/// Blocks of an offered chain that the planner goes through in one event: 8 microseconds, 47 where tables grow.
pub const OFFERED_AT_ONCE: usize = 128;
/// Blocks, or accounts, that one look at the planner is about: some 30 microseconds.
pub const INSPECTED_AT_ONCE: usize = 128;
/// Of what others have finished, what the planner is told between two looks at its inbox: some 30 microseconds.
pub const FINISHED_AT_ONCE: usize = 32;
/// Messages that wait for used chains to be touched: past it, none is taken in before one of them was answered.
pub const HELD_MAX: usize = 64;
/// Purges and evictions by hand that go on at the same time: past it, no message is taken in before one has ended.
pub const JOBS_MAX: usize = 64;
/// Steps that the planner takes in one event of what is too long for one (a purge, what hangs on a block that is lost): 64 blocks
/// that go, or 2,048 that are looked at, some 60 microseconds either way.
pub const STEPS_AT_ONCE: usize = 2_048;
/// Bytes in flight or queued towards a drive as background writes. Past it a write is dropped and counted, the block
/// stays in RAM only. A drive takes 96 MiB at full speed; the rest absorbs a burst of a long prompt.
pub const WRITE_QUEUE_BYTES: u64 = 1 << 30;
/// Threads that read and write a drive with `pread` and `pwrite`: what saturates one NVMe drive at 1 MiB blocks.
pub const DEVICE_THREADS: usize = 4;
/// Bytes that a drive works on at once, where nothing else is configured. Measured by others: one NVMe drive is at its
/// best with 96 MiB and loses 11 % at 1.5 GiB.
pub const DEVICE_INFLIGHT_BYTES: u64 = 96 << 20;
/// Jobs that a drive has at once, or that have landed and were not yet reported: 96 MiB in blocks of 96 KiB, and with one
/// more for its own use a ring of 1024, about what the queue of an NVMe drive takes.
pub const DEVICE_OPS: usize = 1023;
/// How often in a row a job is repeated because it was interrupted or the kernel had no room for it.
pub const DEVICE_RETRIES: u32 = 16;
/// How often in a row the kernel may refuse to take jobs before the drive is given up: about a second.
pub const DEVICE_ENTER_RETRIES: u32 = 1_000;
/// How long a drive waits before it asks such a kernel again.
pub const DEVICE_ENTER_PAUSE: Duration = Duration::from_millis(1);
/// How long a drive that was given up waits for what it still has in flight. What has not landed by then is reported as
/// failed, and its memory is never used again.
pub const DEVICE_DRAIN_MAX: Duration = Duration::from_secs(10);
/// Jobs waiting for a device thread: bounded by the write queue at its smallest slot and by what fetches may read ahead.
pub const DEVICE_QUEUE: usize = 1 << 19;

/// Failed jobs in a row after which a drive is taken out: a cable that was touched fails a few, a dead drive all.
pub const DRIVE_FAILURES_MAX: u32 = 16;
/// Successes that make up for one failure, so that a drive on which one job in twenty fails goes out too.
pub const DRIVE_FAILURE_WEIGHT: u32 = 16;

/// How long a drive may be written at full speed before its wear budget counts: a burst of long prompts is taken whole.
pub const WEAR_BURST: Duration = Duration::from_secs(3_600);
/// Blocks from a chain's start that are written even past the wear budget: system prompts and first turns, which most
/// others hang on (of the hits that an endless cache would have on the published traces, a third and a sixth lie there).
pub const WEAR_HEAD_BLOCKS: u32 = 8;
/// Blocks used once and not written that are remembered, twice over, so that their second use is known as one: 10 MiB,
/// and more than the blocks of an hour of the published conversation trace.
pub const SEEN_BLOCKS: usize = 1 << 18;
/// How often a class that is short of slots looks for an extent of another class: the look costs one pass over all extents.
pub const EXTENT_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Extents that such a look tries, from the coldest on: what hangs on a leased block stays, and many in a row mean that
/// nearly everything does.
pub const EXTENT_CANDIDATES: usize = 8;
/// A class is starved whose coldest block is this many times younger than another's: far enough apart that an extent
/// does not go back and forth.
pub const EXTENT_STARVED: u32 = 4;
/// And the other's must be at least so old: ages of a cache that has just begun to fill say nothing.
pub const EXTENT_STARVED_LEAST: Duration = Duration::from_secs(60);
/// Hours of which a drive's written bytes are remembered one by one: a wear budget is for a day.
pub const WEAR_HOURS: usize = 24;
/// How often the drives' wear is stored: a daemon that is killed forgets a minute of it, and storing it writes nothing
/// beside what it counts.
pub const WEAR_SAVE_EVERY: Duration = Duration::from_secs(60);

/// Blocks that one fetch reads ahead of what it sends.
pub const FETCH_READ_AHEAD: usize = 16;
/// Blocks whose places go into one message of a load: 160 KB, and a long prompt in one.
pub const PLACES_PER_MESSAGE: usize = 4_096;
/// Bytes of RAM whose pages are made with one call at start: some tens of milliseconds, after which a stop is heard.
pub const POPULATE_BYTES: usize = 64 << 20;
/// Parts of the arena handed over in one message: the kernel takes 253 descriptors.
pub const HANDOVER_PARTS: usize = 64;
/// How long a process may take to ask for the arena, or to take it. It is a few hundred bytes.
pub const HANDOVER_MAX: Duration = Duration::from_secs(2);
/// Processes that are handed the arena at a time; each has a thread meanwhile.
pub const HANDOVERS_AT_ONCE: usize = 16;
/// Messages of one load waiting for the wire.
pub const FETCH_CHANNEL: usize = 8;
/// Small blocks of a fetch that share a message, and as many wait for the next: 1 MiB of 16 KiB blocks.
pub const FETCH_MESSAGE_BLOCKS: usize = 64;
/// Messages' worth of slots that a fetch may have pinned: at the walk, in the queue, being cut, and two with HTTP/2.
pub const FETCH_PINNED_MESSAGES: u64 = 5;
/// Bytes that the fetches of one connection may have pinned; others wait. More than keeps a fast wire busy, and a thousand
/// stalled readers of a terabyte host hold a sixteenth of it.
pub const CONNECTION_PINNED_BYTES: u64 = 64 << 20;
/// How long after its deadline a reader may leave bytes unread before it loses its connection: longer than a client waits
/// for the end ([`DEADLINE_GRACE`]).
pub const FETCH_STALL_MAX: Duration = Duration::from_secs(5);
/// It is counted in steps of this, each once however long it took, so that a pause of the daemon is not the reader's stall.
pub const FETCH_STALL_STEP: Duration = Duration::from_millis(500);
/// Payloads smaller than this are copied in between the others' headers: a chunk of their own would cost more.
pub const WIRE_INLINE_BYTES: usize = 8 << 10;
/// Payload bytes of one message: the measured optimum of a gRPC stream.
pub const MESSAGE_PAYLOAD_BYTES: usize = 1 << 20;
/// HTTP/2 frame size: 0.5 to 1.9 GB/s over TCP by this one setting.
pub const HTTP2_FRAME_BYTES: u32 = 4 << 20;
/// HTTP/2 flow-control window of a stream: a few messages, or it stops at every one; more only fills the reader's memory
/// (measured on one host: 1 MiB 2.9 GB/s, 4 MiB 4.4, 8 MiB 3.9, 32 MiB 3.7, 128 MiB 3.3).
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// And of a connection: some streams that nobody reads don't stop the others.
pub const HTTP2_WINDOW_BYTES: u32 = 32 << 20;
/// The largest gRPC message: 65,536 engine keys of 128 bytes, and a put's payload part with its header.
pub const GRPC_MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A fetch's deadline where the caller names none.
pub const FETCH_DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// The longest deadline that a fetch may name.
pub const FETCH_DEADLINE_MAX: Duration = Duration::from_secs(600);

/// Requests whose deliveries are remembered until they settle. An hour of the busiest published host is 12,000; older
/// ones settle with their receipts.
pub const DELIVERIES_MAX: usize = 1 << 18;
/// Settles waiting for the next synced batch of the ledger.
pub const LEDGER_INBOX: usize = 1_024;
/// Settles written with one sync.
pub const LEDGER_BATCH: usize = 256;
/// Tokens that one settle may name in any field: a hundred times the longest prompt that a request can look up, and so
/// small that the sums of four billion such settles fit their 64 bits.
pub const SETTLE_TOKENS_MAX: u64 = 1 << 32;
/// Refused claims that are kept one by one; of more only the number is: a million fill 100 MB.
pub const DIVERGENCES_MAX: u64 = 100_000;
/// Divergences that an audit lists, the largest first; the rest are summed.
pub const DIVERGENCES_LISTED: usize = 20;
/// Bytes that a ledger may take where nothing is said: thirty days of ten million settles a day, of 220 bytes each with their
/// deliveries.
pub const LEDGER_BYTES: u64 = 64 << 30;
/// The least that it may be told to take: its database keeps some 20 MiB of logs and buffers.
pub const LEDGER_BYTES_MIN: u64 = 64 << 20;
/// Share of its bytes, in percent, from which on the ledger warns: at ten million settles a day six days before the bound.
pub const LEDGER_WARN_PERCENT: u64 = 80;
/// Bytes of rows after which the ledger's size on disk is measured again: some thousand settles, for a few stats of files.
pub const LEDGER_MEASURE_BYTES: u64 = 1 << 20;
/// How long identities are kept at least: a gateway that was down over a weekend's night settles again after it.
pub const LEDGER_WINDOW: Duration = Duration::from_secs(48 * 3_600);
/// How long acknowledged records are kept where nothing is said: a month's bill can be exported again.
pub const USAGE_RETENTION: Duration = Duration::from_secs(30 * 86_400);
/// The longest that they may be told to be kept.
pub const USAGE_RETENTION_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);
/// How far the daemon's clock may go back between a delivery and its settle, so that it is still billed; and how much longer than
/// records are kept a delivery is not. Far more than a clock that is kept in time is ever set back, and little beside 48 hours.
pub const DELIVERY_CLOCK_SLACK: Duration = Duration::from_secs(3_600);
/// Records that are deleted with one write: some milliseconds between two batches of settles.
pub const LEDGER_SWEEP_RECORDS: usize = 1_024;
/// Records of a row group of an exported Parquet file: they are in memory, at a kilobyte each at most, until the group is written.
pub const PARQUET_GROUP_RECORDS: usize = 16_384;
/// Records of one exported Parquet file: a hundred megabytes or so, what a query reads well as one piece.
pub const PARQUET_FILE_RECORDS: u64 = 1 << 20;
/// Deleted records after which the room of the oldest ones is given back to the drive at once: 50 MB, one table of the
/// database. Less is given back as the database goes on writing.
pub const LEDGER_COMPACT_RECORDS: u64 = 1 << 18;
/// Rows of one summary: with three words of 128 bytes each they fit a message.
pub const SUMMARY_ROWS_MAX: usize = 32_768;
/// Records of one page of an export: about 1 MiB.
pub const EXPORT_PAGE_RECORDS_MAX: usize = 4_096;
/// Records of one export waiting for the wire.
pub const EXPORT_CHANNEL: usize = 256;
/// Bytes of one line of an export: a record has 46 words of 128 bytes at most, and JSON writes a byte as six at worst.
pub const EXPORT_LINE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a price book: a thousand times one with a dozen prices.
pub const BOOK_BYTES_MAX: usize = 1 << 20;
/// Periods of a price book: each is compared with each, and with every record.
pub const BOOK_PERIODS_MAX: usize = 1_000;
/// Differences that an audit of the ledger lists; the rest are counted.
pub const AUDIT_DIFFERENCES_MAX: usize = 100;
/// RAM in which the ledger's database gathers rows before it writes a table: some hours of the busiest published host.
pub const LEDGER_BUFFER_BYTES: usize = 16 << 20;
/// How soon the ledger is opened again after a write of it has failed, at first: what failed once may work at once.
pub const LEDGER_HEAL_PAUSE: Duration = Duration::from_millis(100);
/// And later, while it goes on failing: settles go on seconds after a person has made room.
pub const LEDGER_HEAL_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Room that must be there before it is opened again, beside half of what is in its log: for
/// a table of what the log holds (8.1 MB for 13.7 MB), and a new log.
pub const LEDGER_ROOM_BYTES: u64 = 4 << 20;
/// How long it is waited for those who read the ledger before it is opened again: a page of an export takes milliseconds.
/// Settles wait meanwhile; longer answers are finished first, and it is tried again later.
pub const LEDGER_READERS_WAIT: Duration = Duration::from_secs(1);
/// The longest time between two samples of what is stored that is metered: five of the timer's minutes. A longer one means
/// that the daemon was away or stuck, and nobody knows what was held.
pub const STORAGE_GAP_MAX: Duration = Duration::from_secs(300);
/// Bytes of the access file: a thousand principals with a dozen tenants and tokens each.
pub const ACCESS_FILE_BYTES_MAX: usize = 1 << 20;
/// Principals of the access file: engines, gateways and people of one fleet.
pub const PRINCIPALS_MAX: usize = 4_096;
/// How often the access file is looked at for a change: a token that was taken out is good for so long at most.
pub const ACCESS_LOOK_EVERY: Duration = Duration::from_secs(1);
/// Refusals of access that are logged each second; more are counted. A flood must not fill the disk.
pub const REFUSALS_LOGGED_A_SECOND: u64 = 100;
/// Bytes of a grant: its words have 128 each at most.
pub const GRANT_BYTES_MAX: usize = 4_096;
/// How long a grant may be valid: it is signed for one request.
pub const GRANT_LIFETIME_MAX: Duration = Duration::from_secs(86_400);
/// Grants that were verified and are remembered: those of a busy host's requests under way.
pub const GRANTS_MAX: std::num::NonZeroUsize = std::num::NonZeroUsize::MIN.saturating_add(16_383);
/// Rows of one admin answer.
pub const INSPECT_ROWS_MAX: usize = 10_000;
/// How long a quiesce waits where the caller names no time.
pub const QUIESCE_DEFAULT: Duration = Duration::from_secs(30);
/// How long a quiesce may wait.
pub const QUIESCE_MAX: Duration = Duration::from_secs(600);
/// How long a stop may take to write what only RAM has, where nothing is said: 60 GB at the 2 GB/s of one drive, and with
/// [`DRAIN_MAX`] on either side within the 90 s that systemd gives a service to stop.
pub const FLUSH_MAX: Duration = Duration::from_secs(30);
/// The longest that a stop may be told to take for it.
pub const FLUSH_MAX_MAX: Duration = Duration::from_secs(3_600);
/// How long what is said last has to reach its sockets before a daemon that can't go on ends: that it does not serve.
pub const FAILURE_TOLD: Duration = Duration::from_millis(200);
/// How often a daemon looks whether something is wrong with it, and says so.
pub const HEALTH_LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a daemon says that it is degraded by a catalog that was begun anew: scrapes and people see it, and nobody restarts a
/// warm cache to be rid of it.
pub const REBUILT_TOLD: Duration = Duration::from_secs(3_600);
/// How long a drain waits for work in flight before it stops all the same.
pub const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Bytes of a line of a trace: the largest request's ids with 20 digits each, twice over.
pub const TRACE_LINE_BYTES_MAX: u64 = 4 << 20;
/// Sub-agents of a session within each other: deeper than anybody delegates, and no recursion that a file could drive on.
pub const SUBAGENTS_NESTED_MAX: usize = 8;
/// Bytes of one session's file.
pub const SESSION_BYTES_MAX: u64 = 256 << 20;
/// Bytes read from a trace at a time.
pub const TRACE_READ_BYTES: usize = 256 << 10;
/// Bytes of a line of chats: the text of a few million tokens.
pub const CHAT_LINE_BYTES_MAX: u64 = 64 << 20;
/// Requests of a trace that are held back to put them in order of time, and block ids of them: 32 MiB.
pub const TRACE_WINDOW_REQUESTS: usize = 65_536;
/// See [`TRACE_WINDOW_REQUESTS`].
pub const TRACE_WINDOW_IDS: usize = 4 << 20;
/// Values of which a trace's quantiles are exact: 8 MiB of them each.
pub const TRACE_EXACT_VALUES: usize = 1 << 20;
/// Bytes of a recording of lookups, where nothing is said.
pub const RECORD_BYTES: u64 = 16 << 30;
/// Fewer would not hold one large request.
pub const RECORD_BYTES_MIN: u64 = 4 << 20;
/// Lookups that wait to be recorded: past it they are dropped, since a lookup does not wait.
pub const RECORD_QUEUE_REQUESTS: usize = 4_096;
/// Blocks of the lookups that wait to be recorded: 32 MiB of keys.
pub const RECORD_QUEUE_BLOCKS: usize = 1 << 20;
/// Requests that a recording remembers, so that one that looks up again is one line.
pub const RECORD_REMEMBERED: usize = 65_536;
/// How often a recording is flushed.
pub const RECORD_FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Foreground jobs that a device thread takes in a row while background ones wait: reads go first, but a drive that is
/// read without pause must not keep written blocks in RAM for ever.
pub const DEVICE_FOREGROUND_RUN: u32 = 16;
/// Bytes copied before they are checksummed: they are still in the core's first-level cache, and so is what the next ones
/// need. Whole cache lines.
pub const COPY_CHUNK_BYTES: usize = 8 << 10;
/// Payloads from this size on are copied past the caches: a quarter of a core's second level.
pub const COPY_STREAM_BYTES: usize = 256 << 10;
/// How long a new daemon waits for the locks of a killed one. I/O in flight outlives its process by tens of
/// milliseconds, and unmapping a large RAM tier takes seconds.
pub const LOCK_WAIT: Duration = Duration::from_secs(10);
/// How often it tries.
pub const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Memory of one write buffer of the catalog, of which there are two: 80,000 rows. It is written far more than read.
pub const CATALOG_WRITE_BUFFER_BYTES: usize = 8 << 20;
/// Memory of the catalog's read cache. Rows are read at start, in one pass, and by hand.
pub const CATALOG_CACHE_BYTES: usize = 8 << 20;
/// Threads that read the catalog at start: with as many, the planner that takes the rows in is what takes time.
pub const SCAN_THREADS: usize = 4;
/// Rows that a thread reading the catalog hands over at a time: about 150 KiB.
pub const SCAN_BATCH_ROWS: usize = 1_024;
/// Batches that such a thread may be ahead.
pub const SCAN_AHEAD_BATCHES: usize = 8;
/// Stale rows that are deleted at a time.
pub const STALE_BATCH_ROWS: usize = 4_096;
/// Bytes of the catalog's write-ahead log: what a restart has to replay, under a second.
pub const CATALOG_WAL_BYTES: u64 = 64 << 20;
/// Shards of one block: the bits of a row's shard bitmap.
pub const SHARDS_MAX: usize = 64;
/// Blocks that a verification reads at a time: what keeps the device's threads busy, at most 1 GiB of the largest payloads.
pub const VERIFY_READS: usize = 16;
/// Bytes a second that the scrub of a running daemon reads where nothing is said: a full 30 TB host in four weeks, and a
/// hundredth of what a slow drive reads.
pub const SCRUB_BYTES_PER_SECOND: u64 = 12 << 20;
/// Passes of the scrub begin at least this far apart, so that a small store is not read over and over.
pub const SCRUB_PASS_EVERY: Duration = Duration::from_secs(86_400);
/// Keys that the scrub asks of the catalog at a time.
pub const SCRUB_BATCH: usize = 64;
/// Bad blocks of one pass that are logged, each with its key; the rest are counted.
pub const SCRUB_REPORTS_MAX: u64 = 100;
/// Messages of one verification waiting for the wire: they say how far it has come, and a reader that is slow may slow it.
pub const VERIFY_CHANNEL: usize = 4;
/// Problems that a verification lists; the rest are counted.
pub const VERIFY_PROBLEMS_MAX: usize = 1_000;

/// Pieces of one message: with 40 bytes of names each, still small beside their payload.
pub const MESSAGE_PIECES_MAX: usize = 4_096;
/// How long a client waits for a connection: a host that does not answer by then is gone or unreachable.
pub const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a client waits for the answer to a call that names no deadline: none of them waits for more than memory, a
/// sync of the ledger, or a table of the catalog.
pub const CALL_MAX: Duration = Duration::from_secs(30);
/// How much longer than a deadline that it named a client waits for the end: a round trip under load.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(2);
/// How often a client asks a silent connection whether it lives, so that a session notices a host that vanished.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// Questions of TCP that stay unanswered before a daemon takes the other host to be gone: two minutes in all.
pub const KEEP_ALIVE_RETRIES: u32 = 3;
/// How long it waits for that answer: two minutes in all as well. A daemon that is only stopped for a while (a debugger, a
/// snapshot of its machine, a host that swaps) keeps its sessions; one that has died is told by its socket, at once.
pub const KEEP_ALIVE_MAX: Duration = Duration::from_secs(90);
/// Calls given up by a client before the daemon has looked at them, of one connection at a time; past it HTTP/2 takes the
/// client for an attacker and ends the connection. All calls with short deadlines of a pause of the daemon arrive so, at
/// its end: 64 at a time that are given up every 20 ms for 5 s. They take 8 MB.
pub const HTTP2_GIVEN_UP_MAX: usize = 16_384;
/// How long a worker's lookup may take where nothing is said: a hundred times what it takes, and less than a prefill.
pub const WORKER_LOOKUP_DEADLINE: Duration = Duration::from_millis(20);
/// How long a worker's load may take where nothing is said.
pub const WORKER_LOAD_DEADLINE: Duration = Duration::from_secs(5);
/// For how long lookups may wait in vain, with no call answered, until a worker stops calling: more than two of their usual
/// deadlines, so that it takes more than one late answer, and little to wait beside a prefill.
pub const BREAKER_SILENCE: Duration = Duration::from_millis(50);
/// How long one probe waits for its answer: the next one goes out at once, so this only limits what a lost one costs.
pub const BREAKER_PROBE_MAX: Duration = Duration::from_secs(10);
/// How long a worker waits before a probe where the one before was answered and lookups were not; twice as long each time.
pub const BREAKER_PAUSE: Duration = Duration::from_millis(50);
/// At most: lookups that are always too late then cost one in twenty of a request's time.
pub const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a worker waits before it looks for its daemon again, when it was lost; twice as long each time.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// At most, when it stays away.
pub const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Requests that have ended and of which a worker could not tell its daemon: as many as an instance may have leases.
pub const KEPT_FINISHES_MAX: usize = LEASES_PER_INSTANCE_MAX;
/// Of those, how many are told at a time.
pub const KEPT_FINISHES_AT_ONCE: usize = 32;
/// How long after it was given up a lookup may still take a lease: a daemon at the end of a pause works through what has come
/// meanwhile. The end of its request is told so much later.
pub const LATE_LOOKUP_MAX: Duration = Duration::from_secs(1);
/// Bytes that a client copies or checksums before it lets other tasks have its thread: 70 to 350 microseconds at 15 to 3 GB/s.
pub const TURN_BYTES: usize = 1 << 20;
/// Tokens that are hashed before other tasks have the thread: 200 microseconds at 80 million a second.
pub const TURN_TOKENS: usize = 16 << 10;
/// How long a worker's settle waits for its answer before it is left to the background: a sync of a slow disk.
pub const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
/// Settles without an answer that a worker keeps: an hour of the busiest published host is 12,000, a minute 200; 10 MB with
/// a receipt and labels each.
pub const SETTLES_KEPT_MAX: usize = 4_096;
/// How long it keeps them: a restart, and the time in which a person makes room on a disk. Well within the window in which
/// the ledger knows a repeat ([`LEDGER_WINDOW`]).
pub const SETTLES_KEPT_FOR: Duration = Duration::from_secs(3_600);
/// Kept settles that are sent at a time: a daemon that comes back has requests to answer.
pub const SETTLES_AGAIN_AT_ONCE: usize = 4;
/// How soon kept settles are sent again, at first.
pub const SETTLE_AGAIN_PAUSE: Duration = Duration::from_millis(200);
/// And later: as long as the daemon itself waits at most before it tries its ledger again.
pub const SETTLE_AGAIN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long the answer to a settle that is sent again is waited for.
pub const SETTLE_CALL_MAX: Duration = Duration::from_secs(10);
/// Messages of one put waiting for the wire: 4 MiB hide the making of the next payload.
pub const PUT_CHANNEL: usize = 4;
/// How often the same trouble is told in the log, however often it comes: a disk that fails fails every block.
pub const COMPLAIN_EVERY: Duration = Duration::from_secs(30);
/// How often the catalog is tried to be opened again after a write of it has failed: some tens of milliseconds each.
pub const MEND_EVERY: Duration = Duration::from_secs(1);
/// Rows of the catalog that one write puts or deletes: a millisecond, and a hundredth of the work of one at a time.
pub const ROWS_AT_ONCE: usize = 1_024;
