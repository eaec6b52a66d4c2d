-- Which worker asks a model for what several were asked at once. `beat` rises while it is at it: who sees it stand still takes
-- the row over. No text is in here, and no row outlives its work by more than a minute.
CREATE TABLE cache_flights (
    exact               BLOB    NOT NULL PRIMARY KEY,
    holder              TEXT    NOT NULL,
    beat                INTEGER NOT NULL,
    at_ms               INTEGER NOT NULL
) STRICT;
