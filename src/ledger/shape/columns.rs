//! kvtier's line as columns: Parquet, for whoever reads months of records. Texts and numbers are what the line has; moments are
//! timestamps in milliseconds, UTC; labels and classes are the JSON that they are there.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{ChunkReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use parquet::schema::parser::parse_message_type;
use serde_json::{Map, Value};

use super::super::UsageRecord;
use super::{Line, LineError, time};
use crate::vocab::Timestamp;
use crate::vocab::limits::PARQUET_GROUP_RECORDS;

/// The bytes that every file of the format begins with.
pub const PARQUET_BEGINS: &[u8] = b"PAR1";

/// How the cells of one column are had from a line.
enum Cells {
    Sequence(fn(&Line) -> u64),
    Small(fn(&Line) -> u32),
    Tokens(fn(&Line) -> i64),
    Words(fn(&Line) -> &str),
    /// A map, as JSON.
    Json(fn(&Line) -> serde_json::Result<String>),
    Moment(fn(&Line) -> &str),
    /// Where it may be absent.
    OptionalMoment(fn(&Line) -> &str),
}

impl Cells {
    /// In the order of [`Line::FIELDS`].
    const ALL: [Self; 28] = [
        Self::Sequence(|line| line.sequence),
        Self::Words(|line| &line.tenant),
        Self::Words(|line| &line.billing_id),
        Self::Small(|line| line.attempt),
        Self::Words(|line| &line.instance),
        Self::Words(|line| &line.fingerprint),
        Self::Words(|line| &line.namespace),
        Self::Moment(|line| &line.settled_at),
        Self::Tokens(|line| line.prompt_tokens),
        Self::Tokens(|line| line.hit_tokens),
        Self::Tokens(|line| line.hit_tokens_ram),
        Self::Tokens(|line| line.hit_tokens_nvme),
        Self::Tokens(|line| line.attested_tokens),
        Self::Tokens(|line| line.miss_tokens),
        Self::Tokens(|line| line.written_tokens),
        Self::Tokens(|line| line.output_tokens),
        Self::Json(|line| serde_json::to_string(&line.labels)),
        Self::Words(|line| &line.user),
        Self::Words(|line| &line.api_key_id),
        Self::Words(|line| &line.finish_reason),
        Self::Words(|line| &line.role),
        Self::Json(|line| serde_json::to_string(&line.written_by_class)),
        Self::Tokens(|line| line.preempted_tokens.cast_signed()),
        Self::Tokens(|line| line.delivered_tokens_ram.cast_signed()),
        Self::Tokens(|line| line.delivered_tokens_nvme.cast_signed()),
        Self::Words(|line| &line.corrects),
        Self::OptionalMoment(|line| &line.corrects_settled_at),
        Self::Words(|line| &line.correction_reason),
    ];

    /// The column's type, in the notation of the format's own documents.
    fn written(&self, name: &str) -> String {
        let (kind, meaning) = match self {
            Self::Sequence(_) => ("required int64", "INTEGER(64,false)"),
            Self::Small(_) => ("required int32", "INTEGER(32,false)"),
            Self::Tokens(_) => ("required int64", "INTEGER(64,true)"),
            Self::Words(_) => ("required binary", "STRING"),
            Self::Json(_) => ("required binary", "JSON"),
            Self::Moment(_) => ("required int64", "TIMESTAMP(MILLIS,true)"),
            Self::OptionalMoment(_) => ("optional int64", "TIMESTAMP(MILLIS,true)"),
        };
        format!("{kind} {name} ({meaning});")
    }

    fn write<W: Write + Send>(
        &self,
        lines: &[Line],
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let missing = || ParquetError::General("fewer columns than fields".to_owned());
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let mut longs = |values: Vec<i64>, present: Option<Vec<i16>>| {
            column.typed::<Int64Type>().write_batch(&values, present.as_deref(), None).map(drop)
        };
        let moment = |text: &str| time::read(text).map_or(0, |at| at.0.cast_signed());
        match self {
            Self::Sequence(of) => longs(lines.iter().map(|line| of(line).cast_signed()).collect(), None)?,
            Self::Tokens(of) => longs(lines.iter().map(of).collect(), None)?,
            Self::Moment(of) => longs(lines.iter().map(|line| moment(of(line))).collect(), None)?,
            Self::OptionalMoment(of) => {
                let present = lines.iter().map(|line| i16::from(!of(line).is_empty())).collect();
                let texts = lines.iter().map(of).filter(|text| !text.is_empty());
                longs(texts.map(moment).collect(), Some(present))?;
            }
            Self::Small(of) => {
                let values: Vec<i32> = lines.iter().map(|line| of(line).cast_signed()).collect();
                column.typed::<Int32Type>().write_batch(&values, None, None)?;
            }
            Self::Words(of) => {
                let values: Vec<ByteArray> = lines.iter().map(|line| of(line).into()).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            }
            Self::Json(of) => {
                let json = |line: &Line| of(line).map(|text| ByteArray::from(text.into_bytes()));
                let values = lines.iter().map(json).collect::<Result<Vec<_>, _>>();
                let values = values.map_err(|error| ParquetError::General(error.to_string()))?;
                column.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            }
        }
        column.close()
    }
}

/// Writes records to one Parquet file.
pub struct Columns<W: Write + Send> {
    file: SerializedFileWriter<W>,
    /// Those that are not written yet.
    lines: Vec<Line>,
}

impl<W: Write + Send> Columns<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn new(to: W) -> io::Result<Self> {
        let columns = Line::FIELDS.iter().zip(&Cells::ALL).map(|(name, cells)| cells.written(name));
        let schema = format!("message usage {{ {} }}", columns.collect::<String>());
        let schema = Arc::new(parse_message_type(&schema)?);
        let by = concat!("kvtier ", env!("CARGO_PKG_VERSION")).to_owned();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_created_by(by).build();
        Ok(Self { file: SerializedFileWriter::new(to, schema, Arc::new(properties))?, lines: Vec::new() })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&mut self, record: &UsageRecord) -> io::Result<()> {
        self.lines.push(Line::of(record));
        if self.lines.len() >= PARQUET_GROUP_RECORDS { self.flush() } else { Ok(()) }
    }

    /// Ends the file: before that it is none.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.lines.is_empty() {
            self.flush()?;
        }
        Ok(self.file.into_inner()?)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut group = self.file.next_row_group()?;
        Cells::ALL.iter().try_for_each(|cells| cells.write(&self.lines, &mut group))?;
        group.close()?;
        self.lines.clear();
        Ok(())
    }
}

/// The lines of a Parquet file, also of one that another program has made of such files.
///
/// # Errors
/// When it is no Parquet file.
pub fn read_columns<R: ChunkReader + 'static>(
    file: R,
) -> io::Result<impl Iterator<Item = io::Result<Result<Line, LineError>>>> {
    let rows = RowIter::from_file_into(Box::new(SerializedFileReader::new(file)?));
    Ok(rows.map(|row| Ok(line(&row?))))
}

fn line(row: &Row) -> Result<Line, LineError> {
    let mut fields = Map::new();
    for (name, field) in row.get_column_iter() {
        if let Some(value) = value(name, field)? {
            fields.insert(name.clone(), value);
        }
    }
    Line::parse(Value::Object(fields).to_string().as_bytes())
}

/// Nothing for a cell that is absent.
fn value(name: &str, field: &Field) -> Result<Option<Value>, LineError> {
    let milliseconds = |at: i64| u64::try_from(at).ok().map(|at| Value::String(time::written(Timestamp(at))));
    Ok(match field {
        Field::Null => None,
        Field::Str(text) if matches!(name, "labels" | "written_by_class") => {
            Some(serde_json::from_str(text).map_err(|_| LineError::new(name, text, "a JSON object"))?)
        }
        Field::Str(text) => Some(text.as_str().into()),
        Field::Int(number) => Some((*number).into()),
        Field::Long(number) => Some((*number).into()),
        Field::UInt(number) => Some((*number).into()),
        Field::ULong(number) => Some((*number).into()),
        Field::TimestampMillis(at) => milliseconds(*at),
        Field::TimestampMicros(at) if at % 1_000 == 0 => milliseconds(at / 1_000),
        other => return Err(LineError::new(name, other, "a text, a whole number or a moment in milliseconds")),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::ledger::sample::settlement;
    use crate::ledger::{Correction, Counts, Settlement};
    use crate::vocab::BillingId;

    fn record(number: u64) -> UsageRecord {
        let unnamed = Settlement { request_id: None, ..settlement("acme", &format!("b-{number}")) };
        let record = UsageRecord::of(unnamed, number).unwrap();
        if !number.is_multiple_of(3) {
            return record;
        }
        let corrects = BillingId::parse("b-0").unwrap();
        let (used_at, reason) = (record.settled_at, "it said \"twice\"\n".to_owned());
        let correction = Correction { corrects, used_at, reason, written_by_class: Default::default() };
        let delivered = Default::default();
        UsageRecord { counts: -record.counts, delivered, correction: Some(correction), ..record }
    }

    fn written(records: &[UsageRecord]) -> Vec<u8> {
        let mut columns = Columns::new(Vec::new()).unwrap();
        records.iter().for_each(|record| columns.write(record).unwrap());
        columns.finish().unwrap()
    }

    fn read(bytes: Vec<u8>) -> Vec<UsageRecord> {
        read_columns(Bytes::from(bytes)).unwrap().map(|line| line.unwrap().unwrap().record().unwrap()).collect()
    }

    #[test]
    fn records_read_back_from_their_columns_over_several_groups() {
        let records: Vec<UsageRecord> = (1..=PARQUET_GROUP_RECORDS as u64 * 2 + 5).map(record).collect();
        let bytes = written(&records);
        assert!(bytes.starts_with(PARQUET_BEGINS));
        assert!(bytes.len() < records.len() * 40, "{} bytes", bytes.len());
        assert_eq!(read(bytes), records);
        assert_eq!(read(written(&[])), []);
    }

    #[test]
    fn a_file_that_was_not_ended_is_none() {
        let bytes = written(&[record(1)]);
        assert!(read_columns(Bytes::from(bytes[..bytes.len() - 1].to_vec())).is_err());
        assert!(read_columns(Bytes::from_static(b"{\"sequence\":1}\n")).is_err());
    }

    #[test]
    fn a_cell_that_can_not_be_one_is_refused_by_its_name() {
        assert_eq!(
            value("settled_at", &Field::TimestampMicros(5_000)),
            value("settled_at", &Field::TimestampMillis(5))
        );
        for (name, field, words) in [
            ("settled_at", Field::TimestampMicros(5_001), "settled_at is "),
            ("miss_tokens", Field::Double(0.5), "miss_tokens is 0.5, it must be a text, a whole number"),
            ("labels", Field::Str("{".to_owned()), "labels is {, it must be a JSON object"),
        ] {
            let error = value(name, &field).unwrap_err().to_string();
            assert!(error.starts_with(words), "{error}");
        }
        let counts = Counts { miss: 1, ..record(1).counts };
        let bytes = written(&[UsageRecord { counts, ..record(1) }]);
        let line = read_columns(Bytes::from(bytes)).unwrap().next().unwrap().unwrap().unwrap();
        assert!(line.record().unwrap_err().to_string().starts_with("prompt_tokens is 1000, it must be the sum"));
    }
}
