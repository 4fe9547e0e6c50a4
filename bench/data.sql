-- Tables shaped like BookReader's, about 1 GB of dump data at scale 1, made inside the server.
-- Text is put together from a pool of paragraphs too large for a compressor to remember (14 MB).
SELECT setseed(0.20251024);
SET synchronous_commit = off;
SET work_mem = '64MB';
SET maintenance_work_mem = '256MB';
CREATE ROLE bookreader_user LOGIN PASSWORD 'not-a-secret';
ALTER SCHEMA public OWNER TO bookreader_user;

CREATE TEMP TABLE word AS
SELECT n AS id, string_agg(substr(CASE n % 2 WHEN 0 THEN 'оеаинтсрвлкмдпуя' ELSE 'etaoinshrdlucmfw' END,
                                  1 + floor(random() * 16)::int, 1), '') AS text
FROM generate_series(0, 3999) n, generate_series(1, 2 + n % 8) GROUP BY n;
CREATE TEMP TABLE paragraph AS
SELECT picked.id, string_agg(text, ' ') AS text
FROM (SELECT p AS id, floor(power(random(), 3) * 4000)::int AS word
      FROM generate_series(0, 19999) p, generate_series(1, 80)) picked
JOIN word ON word.id = picked.word GROUP BY picked.id;
CREATE INDEX ON paragraph (id);
ANALYZE paragraph;
GRANT SELECT ON paragraph TO bookreader_user;

SET ROLE bookreader_user;

CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('3f1c9a7be204');

CREATE TABLE users (id bigint, email text, password_hash text, reader_settings jsonb, created_at timestamptz);
INSERT INTO users
SELECT n, 'reader' || n || '@example.org', '$2b$12$' || md5(n::text) || md5('x' || n),
       jsonb_build_object('theme', (ARRAY['light','dark','sepia'])[1 + n % 3], 'size', 10 + n % 9),
       timestamptz '2024-10-24' + n * interval '7 minutes'
FROM generate_series(1, ceil(20000 * :scale)::int) n;

CREATE TABLE subscriptions (id bigint, user_id bigint, plan text, ends_at timestamptz);
INSERT INTO subscriptions
SELECT id, id, (ARRAY['free','premium','ultimate'])[1 + id % 3], created_at + interval '1 year' FROM users;

CREATE TABLE payments (id bigint, user_id bigint, amount numeric(12, 2), receipt bytea);
INSERT INTO payments
SELECT n, 1 + n % 20000, (random() * 900 + 99)::numeric(12, 2),
       (SELECT string_agg(sha512((n || '/' || k)::bytea), ''::bytea) FROM generate_series(1, 24) k)
FROM generate_series(1, ceil(60000 * :scale)::int) n;

CREATE TABLE books (id bigint, user_id bigint, title text, author text, file_path text, book_metadata jsonb);
INSERT INTO books
SELECT n, 1 + n % 20000, left(p.text, 60), substr(p.text, 61, 24), 'books/epub/' || md5(n::text) || '.epub',
       jsonb_build_object('isbn', 9780000000000 + n, 'annotation', p.text, 'sha256', sha256(n::text::bytea))
FROM generate_series(1, ceil(8000 * :scale)::int) n
JOIN paragraph p ON p.id = (n * 7919::bigint) % 20000;

CREATE TABLE chapters (id bigint, book_id bigint, chapter_number int, title text, content text);
INSERT INTO chapters
SELECT n, 1 + n / 8, 1 + n % 8, 'Chapter ' || n, string_agg(p.text, E'\n')
FROM generate_series(1, ceil(62000 * :scale)::int) n CROSS JOIN generate_series(1, 10) k
JOIN paragraph p ON p.id = abs(hashint8(n * 10::bigint + k)::bigint) % 20000
GROUP BY n;

CREATE TABLE descriptions
    (id bigint, chapter_id bigint, type text, content text, confidence real, priority float8, entities jsonb);
INSERT INTO descriptions
SELECT n, 1 + n / 10, (ARRAY['location','character','atmosphere'])[1 + n % 3],
       substr(p.text, 1 + n % 300, 220), random()::real, random() * 100,
       jsonb_build_array(md5(n::text), n % 97, random())
FROM generate_series(1, ceil(500000 * :scale)::int) n
JOIN paragraph p ON p.id = abs(hashint8(n)::bigint) % 20000;

CREATE TABLE generated_images
    (id uuid, description_id bigint, local_path text, status text, width int, height int, file_size bigint);
INSERT INTO generated_images
SELECT gen_random_uuid(), n, 'images/locations/' || md5(random()::text) || '.png', 'completed', 1024, 1024,
       (random() * 3e6)::bigint
FROM generate_series(1, ceil(500000 * :scale)::int) n;

CREATE TABLE reading_sessions
    (id bigint, user_id bigint, book_id bigint, started_at timestamptz, ended_at timestamptz, percent float8);
INSERT INTO reading_sessions
SELECT n, 1 + floor(random() * 20000)::bigint, 1 + floor(random() * 8000)::bigint,
       timestamptz '2024-10-24' + n * interval '9 seconds', timestamptz '2024-10-24' + n * interval '11 seconds',
       random() * 100
FROM generate_series(1, ceil(2000000 * :scale)::int) n;

ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE subscriptions ADD PRIMARY KEY (id);
ALTER TABLE payments ADD PRIMARY KEY (id);
ALTER TABLE books ADD PRIMARY KEY (id);
ALTER TABLE chapters ADD PRIMARY KEY (id);
ALTER TABLE descriptions ADD PRIMARY KEY (id);
ALTER TABLE generated_images ADD PRIMARY KEY (id);
ALTER TABLE reading_sessions ADD PRIMARY KEY (id);
CREATE INDEX ON descriptions (chapter_id);
CREATE INDEX ON reading_sessions (user_id, started_at);

RESET ROLE;
VACUUM ANALYZE;
CHECKPOINT;
