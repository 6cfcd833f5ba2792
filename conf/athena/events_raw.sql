-- The same as events.sql for EVENT_FORMAT=raw: whole seconds, always a cookie, any text as body.
-- Put your RAW_BUCKET for my-bucket, your RAW_PREFIX for raw, and the day of the first event
-- for 2026-01-01. For each further name in CAPTURE_HEADERS add a column before body.
-- Where both formats lie under one prefix, the table of events.sql reads both, without cookie.
CREATE EXTERNAL TABLE IF NOT EXISTS events_raw (
  id string COMMENT 'unique: stream and number',
  ts bigint COMMENT 'time of receipt, whole unix seconds',
  ip string COMMENT 'the client, as IP_MODE says',
  user_agent string,
  cookie string COMMENT 'empty if there was none',
  body string COMMENT 'the event, any text'
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
