-- A database shaped like BookReader's. Runs in psql as the superuser, connected to the new database;
-- the variables :owner_password and :reader_password are set before.
CREATE ROLE bookreader_user LOGIN PASSWORD :'owner_password';
CREATE ROLE bookreader_readonly LOGIN PASSWORD :'reader_password';
ALTER ROLE bookreader_user SET timezone = 'UTC';
ALTER DATABASE bookreader OWNER TO bookreader_user;
GRANT CONNECT ON DATABASE bookreader TO bookreader_readonly;
ALTER SCHEMA public OWNER TO bookreader_user;

SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_trgm') AS has_trgm \gset
\if :has_trgm
CREATE EXTENSION pg_trgm;
\endif

SET ROLE bookreader_user;

CREATE TYPE subscription_plan AS ENUM ('free', 'premium', 'ultimate');
CREATE TYPE subscription_status AS ENUM ('active', 'expired', 'cancelled', 'pending');
CREATE TYPE book_format AS ENUM ('epub', 'fb2');
CREATE TYPE description_type AS ENUM ('location', 'character', 'atmosphere', 'object', 'action');
CREATE TYPE image_status AS ENUM ('pending', 'generating', 'completed', 'failed');

CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email varchar(255) NOT NULL UNIQUE CHECK (email LIKE '%_@_%'),
    password_hash varchar(255) NOT NULL,
    full_name text,
    is_active boolean NOT NULL DEFAULT true,
    is_admin boolean NOT NULL DEFAULT false,
    reader_settings jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    last_login timestamptz
);

CREATE TABLE subscriptions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL UNIQUE REFERENCES users ON DELETE CASCADE,
    plan subscription_plan NOT NULL DEFAULT 'free',
    status subscription_status NOT NULL DEFAULT 'active',
    started_at timestamptz NOT NULL DEFAULT now(),
    ends_at timestamptz,
    books_uploaded integer NOT NULL DEFAULT 0 CHECK (books_uploaded >= 0),
    CHECK (ends_at IS NULL OR ends_at > started_at)
);

CREATE TABLE payments (
    id bigserial PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE RESTRICT,
    amount numeric(12, 2) NOT NULL CHECK (amount > 0),
    currency char(3) NOT NULL DEFAULT 'RUB',
    provider_reference text NOT NULL UNIQUE,
    receipt bytea,
    paid_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE books (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    title varchar(500) NOT NULL,
    author varchar(255),
    language char(2) NOT NULL,
    file_path text NOT NULL UNIQUE,
    file_format book_format NOT NULL,
    file_size bigint NOT NULL CHECK (file_size > 0),
    cover_image text,
    book_metadata jsonb NOT NULL DEFAULT '{}',
    is_parsed boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE chapters (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    book_id uuid NOT NULL REFERENCES books ON DELETE CASCADE,
    chapter_number integer NOT NULL CHECK (chapter_number > 0),
    title text,
    content text NOT NULL,
    letters integer GENERATED ALWAYS AS (length(content)) STORED,
    UNIQUE (book_id, chapter_number)
);

CREATE TABLE descriptions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    chapter_id uuid NOT NULL REFERENCES chapters ON DELETE CASCADE,
    type description_type NOT NULL,
    content text NOT NULL,
    confidence real NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    priority double precision NOT NULL DEFAULT 0,
    entities text[] NOT NULL DEFAULT '{}'
);

CREATE TABLE generated_images (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    description_id uuid NOT NULL REFERENCES descriptions ON DELETE CASCADE,
    local_path text NOT NULL UNIQUE,
    status image_status NOT NULL DEFAULT 'pending',
    width integer NOT NULL,
    height integer NOT NULL,
    file_size bigint NOT NULL,
    generation_seconds interval,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE reading_progress (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    book_id uuid NOT NULL REFERENCES books ON DELETE CASCADE,
    chapter_number integer NOT NULL DEFAULT 1,
    percent numeric(5, 2) NOT NULL CHECK (percent BETWEEN 0 AND 100),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, book_id)
);

CREATE TABLE reading_sessions (
    id bigserial PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    book_id uuid NOT NULL REFERENCES books ON DELETE CASCADE,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    pages_read integer NOT NULL DEFAULT 0,
    device inet,
    CHECK (ended_at IS NULL OR ended_at >= started_at)
);

CREATE TABLE reading_goals (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    minutes_per_day integer NOT NULL CHECK (minutes_per_day BETWEEN 1 AND 1440),
    valid daterange NOT NULL
);

CREATE TABLE bookmarks (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    chapter_id uuid NOT NULL REFERENCES chapters ON DELETE CASCADE,
    position integer NOT NULL,
    note text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE feature_flags (
    name varchar(100) PRIMARY KEY,
    enabled boolean NOT NULL DEFAULT false,
    rules jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE push_subscriptions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    endpoint text NOT NULL UNIQUE,
    keys jsonb NOT NULL
);

CREATE VIEW reading_statistics AS
    SELECT user_id, count(*) AS sessions, sum(pages_read) AS pages FROM reading_sessions GROUP BY user_id;

CREATE INDEX chapters_book ON chapters (book_id);
CREATE INDEX descriptions_priority ON descriptions (chapter_id, priority DESC);
CREATE INDEX books_metadata ON books USING gin (book_metadata);
CREATE INDEX sessions_open ON reading_sessions (user_id) WHERE ended_at IS NULL;
CREATE UNIQUE INDEX users_email_lower ON users (lower(email));
\if :has_trgm
CREATE INDEX books_title_trgm ON books USING gin (title gin_trgm_ops);
\endif

GRANT USAGE ON SCHEMA public TO bookreader_readonly;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO bookreader_readonly;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO bookreader_readonly;
