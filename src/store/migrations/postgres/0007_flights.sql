-- Which worker asks a model for what several were asked at once. `beat` rises while it is at it: who sees it stand still takes
-- the row over. No text is in here, and no row outlives its work by more than a minute.
CREATE TABLE cache_flights (
    exact               BYTEA PRIMARY KEY,
    holder              TEXT COLLATE "C" NOT NULL,
    beat                BIGINT NOT NULL,
    at_ms               BIGINT NOT NULL
);
