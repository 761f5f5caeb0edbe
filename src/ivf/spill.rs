//! Encoded rows between the scan of the table and the writing of lists: in memory while they fit, else in temporary
//! files, each of which holds the rows of a range of lists that can be sorted in memory.
use std::ops::Range;

use ivf_core::{Encoded, PageStore, Trained, Writer};
use pgrx::prelude::*;

use crate::failure::Failure;
use crate::interrupts;

/// Bytes of a list's number in front of its record in a file.
const LIST: usize = size_of::<u32>();
/// What a row in memory needs besides its record: its list, and its place in the sorted order.
const BESIDES: usize = LIST + size_of::<(u32, u32)>();
/// PostgreSQL keeps a buffer of 8 kB for each file.
const MOST_FILES: usize = 512;
/// Files are made for more rows than are expected, since lists are never quite as large as the sample says.
const RESERVE: f64 = 1.3;
/// Records read from a file at once.
const READ_AHEAD: usize = 256;

/// Encoded rows, gathered in any order and given out list by list.
pub(super) struct Gathered {
    /// Bytes of a record.
    record: usize,
    /// Bytes of rows that may lie in memory.
    budget: usize,
    /// Rows of each list.
    counts: Vec<u32>,
    rows: u64,
    held: Vec<Encoded>,
    held_rows: usize,
    files: Option<Files>,
}

/// Temporary files, each of a range of lists.
struct Files {
    files: Vec<File>,
    /// Where each list's rows go.
    file_of: Vec<u16>,
    entry: Vec<u8>,
}

struct File {
    file: *mut pg_sys::BufFile,
    lists: Range<u32>,
}

impl Gathered {
    pub fn new(trained: &Trained, budget: usize) -> Result<Self, Failure> {
        Ok(Gathered {
            record: trained.record_bytes(),
            budget,
            counts: memory::zeroed(trained.lists() as usize)?,
            rows: 0,
            held: Vec::new(),
            held_rows: 0,
            files: None,
        })
    }

    /// Rows gathered.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds rows. `expected` is how many there will be in the end: it decides about the number of files.
    pub fn add(&mut self, batch: Encoded, trained: &Trained, expected: f64) -> Result<(), Failure> {
        for &list in &batch.lists {
            self.counts[list as usize] += 1;
        }
        self.rows += batch.lists.len() as u64;
        if let Some(files) = &mut self.files {
            return files.put(&batch, self.record);
        }
        self.held_rows += batch.lists.len();
        self.held.push(batch);
        if self.held_rows * (self.record + BESIDES) > self.budget {
            let expected = expected.max(2.0 * self.rows as f64) * (self.record + BESIDES) as f64 * RESERVE;
            let files = (expected / self.budget as f64).ceil() as usize;
            let files = self.files.insert(Files::create(trained, files.clamp(2, MOST_FILES)));
            for batch in std::mem::take(&mut self.held) {
                files.put(&batch, self.record)?;
            }
            self.held_rows = 0;
        }
        Ok(())
    }

    /// Writes all lists. `progress` is told the rows written so far.
    pub fn write<S: PageStore>(
        self,
        writer: &mut Writer<'_, S>,
        mut progress: impl FnMut(u64),
    ) -> Result<ivf_core::Result<()>, Failure> {
        let Some(files) = &self.files else {
            return self.write_held(writer, &mut progress);
        };
        let mut done = 0;
        for file in &files.files {
            for lists in self.portions(file.lists.clone()) {
                if lists.len() == 1 && self.bytes_of(lists.start) > self.budget {
                    let rows = self.counts[lists.start as usize];
                    let mut records = file.records_of(lists.start, self.record)?;
                    let mut more = |wanted: usize, out: &mut Vec<u8>| records.take(wanted, out);
                    if let Err(error) = writer.add_long_list(lists.start, rows as usize, &mut more) {
                        return Ok(Err(error));
                    }
                    done += u64::from(rows);
                    progress(done);
                    continue;
                }
                let sorted = self.load(file, &lists)?;
                let mut at = 0;
                for list in lists {
                    let bytes = self.counts[list as usize] as usize * self.record;
                    let mut records = sorted[at..at + bytes].chunks_exact(self.record);
                    if let Err(error) = writer.add_list(list, &mut records) {
                        return Ok(Err(error));
                    }
                    at += bytes;
                    done += u64::from(self.counts[list as usize]);
                    progress(done);
                }
            }
            // SAFETY: ours, and used no more. After an error PostgreSQL removes it at the transaction's end.
            unsafe { pg_sys::BufFileClose(file.file) }
        }
        Ok(Ok(()))
    }

    /// Writes lists whose rows all lie in memory.
    fn write_held<S: PageStore>(
        &self,
        writer: &mut Writer<'_, S>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<ivf_core::Result<()>, Failure> {
        let mut next: Vec<u32> = memory::vector(self.counts.len())?;
        let mut total = 0;
        for &count in &self.counts {
            next.push(total);
            total += count;
        }
        let mut order: Vec<(u32, u32)> = memory::zeroed(total as usize)?;
        for (at, batch) in self.held.iter().enumerate() {
            for (row, &list) in batch.lists.iter().enumerate() {
                let place = &mut next[list as usize];
                order[*place as usize] = (at as u32, row as u32);
                *place += 1;
            }
        }
        // `next` has become where each list ends.
        let mut start = 0;
        for (list, &end) in next.iter().enumerate() {
            let mut records = order[start as usize..end as usize].iter().map(|&(at, row)| {
                let from = row as usize * self.record;
                &self.held[at as usize].records[from..from + self.record]
            });
            if let Err(error) = writer.add_list(list as u32, &mut records) {
                return Ok(Err(error));
            }
            start = end;
            progress(u64::from(end));
        }
        Ok(Ok(()))
    }

    /// Bytes of a list's records.
    fn bytes_of(&self, list: u32) -> usize {
        self.counts[list as usize] as usize * self.record
    }

    /// Divides a file's lists into ranges that fit into memory. A list that does not fit by itself is one of them.
    fn portions(&self, lists: Range<u32>) -> Vec<Range<u32>> {
        let mut portions = Vec::new();
        let mut start = lists.start;
        let mut bytes = 0;
        for list in lists.clone() {
            let more = self.bytes_of(list);
            if bytes + more > self.budget && list > start {
                portions.push(start..list);
                (start, bytes) = (list, 0);
            }
            bytes += more;
        }
        portions.push(start..lists.end);
        portions
    }

    /// The records of some lists of a file, in the order of the lists.
    fn load(&self, file: &File, lists: &Range<u32>) -> Result<Vec<u8>, Failure> {
        let mut next = Vec::with_capacity(lists.len());
        let mut total = 0;
        for list in lists.clone() {
            next.push(total);
            total += self.counts[list as usize] as usize * self.record;
        }
        let mut sorted: Vec<u8> = memory::zeroed(total)?;
        file.rewind()?;
        let entry = LIST + self.record;
        let mut buffer = vec![0; entry * READ_AHEAD];
        loop {
            interrupts::process();
            let read = file.read(&mut buffer);
            for bytes in buffer[..read].chunks_exact(entry) {
                let (list, record) = bytes.split_at(LIST);
                let list = u32::from_le_bytes(list.try_into().unwrap_or_default());
                if lists.contains(&list) {
                    let place = &mut next[(list - lists.start) as usize];
                    let Some(target) = sorted.get_mut(*place..*place + self.record) else {
                        return Err(damaged());
                    };
                    target.copy_from_slice(record);
                    *place += self.record;
                }
            }
            if read < buffer.len() {
                return Ok(sorted);
            }
        }
    }
}

impl Files {
    /// Divides the lists so that each file can expect as many rows.
    fn create(trained: &Trained, count: usize) -> Self {
        let mut files: Vec<File> = Vec::with_capacity(count);
        let mut file_of = Vec::with_capacity(trained.lists() as usize);
        let mut share = 0.0;
        for list in 0..trained.lists() {
            // Lists go to the file in which the middle of their share of the rows falls.
            let here = trained.expected_share(list);
            let wanted = ((share + here / 2.0) * count as f64) as usize;
            share += here;
            if files.is_empty() || (wanted >= files.len() && files.len() < count) {
                files.push(File::create(list..list));
            }
            if let Some(file) = files.last_mut() {
                file.lists.end = list + 1;
            }
            file_of.push((files.len() - 1) as u16);
        }
        Files {
            files,
            file_of,
            entry: Vec::new(),
        }
    }

    fn put(&mut self, batch: &Encoded, record: usize) -> Result<(), Failure> {
        for (&list, bytes) in batch.lists.iter().zip(batch.records.chunks_exact(record)) {
            self.entry.clear();
            self.entry.extend_from_slice(&list.to_le_bytes());
            self.entry.extend_from_slice(bytes);
            let Some(file) = self
                .file_of
                .get(list as usize)
                .and_then(|&at| self.files.get(at as usize))
            else {
                return Err(damaged());
            };
            // SAFETY: the file is open; PostgreSQL copies the bytes, and raises an error where it cannot write them.
            unsafe { pg_sys::BufFileWrite(file.file, self.entry.as_mut_ptr().cast(), self.entry.len()) }
        }
        Ok(())
    }
}

impl File {
    /// An empty file that PostgreSQL removes at the transaction's end at the latest, and counts against
    /// `temp_file_limit`.
    fn create(lists: Range<u32>) -> Self {
        File {
            // SAFETY: inside a transaction, in a memory context that lives as long as the build.
            file: unsafe { pg_sys::BufFileCreateTemp(false) },
            lists,
        }
    }

    fn rewind(&self) -> Result<(), Failure> {
        // SAFETY: the file is open. Whence 0 is the file's beginning (SEEK_SET).
        match unsafe { pg_sys::BufFileSeek(self.file, 0, 0, 0) } {
            0 => Ok(()),
            _ => Err(damaged()),
        }
    }

    /// The records of one list, from the beginning.
    fn records_of(&self, list: u32, record: usize) -> Result<RecordsOf<'_>, Failure> {
        self.rewind()?;
        Ok(RecordsOf {
            file: self,
            list,
            entry: LIST + record,
            buffer: vec![0; (LIST + record) * READ_AHEAD],
            filled: 0,
            at: 0,
        })
    }

    /// Reads as much as there is, at most the buffer's length.
    fn read(&self, buffer: &mut [u8]) -> usize {
        // Not BufFileReadMaybeEOF, which 16 and later have for it: that allows for a file that ends before a block
        // begins, and takes a last block that is short for a damaged file.
        // SAFETY: the file is open, the buffer has room for its length.
        unsafe { pg_sys::BufFileRead(self.file, buffer.as_mut_ptr().cast(), buffer.len()) }
    }
}

/// The records of one list as they come from a file that holds others, too.
struct RecordsOf<'f> {
    file: &'f File,
    list: u32,
    /// Bytes of a record with its list's number.
    entry: usize,
    buffer: Vec<u8>,
    filled: usize,
    at: usize,
}

impl RecordsOf<'_> {
    /// Appends the next `wanted` records; fewer where the file ends.
    fn take(&mut self, wanted: usize, out: &mut Vec<u8>) -> ivf_core::Result<()> {
        let mut taken = 0;
        while taken < wanted {
            if self.at == self.filled {
                interrupts::process();
                self.filled = self.file.read(&mut self.buffer) / self.entry * self.entry;
                self.at = 0;
                if self.filled == 0 {
                    break;
                }
            }
            let (list, record) = self.buffer[self.at..self.at + self.entry].split_at(LIST);
            if list == self.list.to_le_bytes() {
                out.extend_from_slice(record);
                taken += 1;
            }
            self.at += self.entry;
        }
        Ok(())
    }
}

fn damaged() -> Failure {
    Failure::new(
        PgSqlErrorCode::ERRCODE_IO_ERROR,
        "a temporary file of an index build does not hold what was written to it",
    )
}
