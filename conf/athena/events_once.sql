-- Each id once. One bucket never has an id twice, so this is only for a table over more than that:
-- RAW_BUCKET and FALLBACK_BUCKET together, or copies (docs/reading.md).
-- dt and hr are in the window so that a query's partitions are still all that is read; an id
-- that is there twice has the same partition in both places, for it is the same key.
CREATE OR REPLACE VIEW events_once AS
SELECT id, ts, ip, user_agent, body, dt, hr
FROM (
  SELECT *, row_number() OVER (PARTITION BY dt, hr, id ORDER BY ts) AS copy
  FROM events
)
WHERE copy = 1
