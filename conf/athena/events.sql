-- The stored events as a table of Athena (or Glue). docs/reading.md has a query.
-- Put your RAW_BUCKET for my-bucket, your RAW_PREFIX for raw, and the day of the first event
-- for 2026-01-01. EVENT_FORMAT=raw has a table of its own, events_raw.sql.
-- For each name in CAPTURE_HEADERS add a column before body, as `referer string`;
-- with CAPTURE_WRITE_KEY_NAME=true, `write_key string`.
-- dt goes to NOW+1DAYS: NOW is UTC, and east of it the next day has begun already.
-- OpenX reads an object into a string, which Hive's JsonSerDe can't. case.insensitive is off, or an
-- event with both URL and url would be an error. ignore.malformed.json is off, for every stored line
-- is valid JSON, and one that is not should be seen.
CREATE EXTERNAL TABLE IF NOT EXISTS events (
  id string COMMENT 'unique: stream and number',
  ts double COMMENT 'time of receipt, unix seconds',
  ip string COMMENT 'the client, as IP_MODE says',
  user_agent string,
  body string COMMENT 'the event, as JSON text'
)
PARTITIONED BY (
  dt string COMMENT 'day of receipt in PARTITION_TZ',
  hr int COMMENT 'hour of receipt in PARTITION_TZ'
)
ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'
WITH SERDEPROPERTIES (
  'case.insensitive' = 'FALSE',
  'ignore.malformed.json' = 'FALSE'
)
LOCATION 's3://my-bucket/raw/'
TBLPROPERTIES (
  'projection.enabled' = 'true',
  'projection.dt.type' = 'date',
  'projection.dt.format' = 'yyyy-MM-dd',
  'projection.dt.range' = '2026-01-01,NOW+1DAYS',
  'projection.dt.interval' = '1',
  'projection.dt.interval.unit' = 'DAYS',
  'projection.hr.type' = 'integer',
  'projection.hr.range' = '0,23',
  'projection.hr.digits' = '2',
  'storage.location.template' = 's3://my-bucket/raw/dt=${dt}/hr=${hr}/'
)
