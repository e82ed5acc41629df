-- Поля YClients Marketplace в таблице companies: 13 колонок, журнал событий, токены.
-- Без BEGIN/COMMIT; последняя команда второй раз не проходит.
ALTER TABLE companies ADD COLUMN IF NOT EXISTS integration_status varchar(50) DEFAULT 'pending';
ALTER TABLE companies ADD COLUMN IF NOT EXISTS marketplace_user_id varchar(255);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS marketplace_user_name varchar(255);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS marketplace_user_phone varchar(50);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS marketplace_user_email varchar(255);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS whatsapp_connected boolean DEFAULT false;
ALTER TABLE companies ADD COLUMN IF NOT EXISTS whatsapp_phone varchar(50);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS whatsapp_connected_at timestamptz;
ALTER TABLE companies ADD COLUMN IF NOT EXISTS whatsapp_session_data text;
ALTER TABLE companies ADD COLUMN IF NOT EXISTS api_key varchar(255);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS webhook_secret varchar(255);
ALTER TABLE companies ADD COLUMN IF NOT EXISTS last_payment_date timestamptz;
ALTER TABLE companies ADD COLUMN IF NOT EXISTS connected_at timestamptz;

CREATE INDEX IF NOT EXISTS idx_companies_integration_status ON companies (integration_status);

COMMENT ON COLUMN companies.integration_status IS 'Статус: pending; pending_whatsapp; active; frozen; uninstalled';

CREATE TABLE IF NOT EXISTS marketplace_events (
  id serial PRIMARY KEY,
  company_id integer REFERENCES companies (id) ON DELETE CASCADE,
  salon_id integer NOT NULL,
  event_type varchar(50) NOT NULL,
  event_data jsonb,
  created_at timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS marketplace_tokens (
  id serial PRIMARY KEY,
  company_id integer REFERENCES companies (id) ON DELETE CASCADE,
  token_type varchar(50) NOT NULL,
  token text NOT NULL,
  updated_at timestamptz DEFAULT now()
);

CREATE OR REPLACE FUNCTION touch_updated_at() RETURNS trigger AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END;
$$ LANGUAGE plpgsql;

CREATE TRIGGER marketplace_tokens_touch BEFORE UPDATE ON marketplace_tokens
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
