{{- define "smartlink.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "smartlink.secret" -}}
{{- .Values.secrets.existing | default (printf "%s-secrets" (include "smartlink.name" .)) }}
{{- end }}

{{- define "smartlink.host" -}}
{{- .Values.url | trimPrefix "https://" | splitList ":" | first }}
{{- end }}

{{/* What tells a service's pods from others: dict "root" $ "service" "app" */}}
{{- define "smartlink.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .service }}
{{- end }}

{{- define "smartlink.labels" -}}
{{ include "smartlink.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "smartlink.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}{{ end }}
{{- end }}
{{- end }}

{{/* Settings of one service, its own last: dict "root" $ "own" (dict …) */}}
{{- define "smartlink.environment" -}}
{{- $name := include "smartlink.name" .root }}
{{- $public := .root.Values.url | trimPrefix "https://" | splitList ":" }}
{{- $proxies := join "," .root.Values.trustedProxies }}
{{- $all := dict
  "APP_ENV" "production"
  "APP_HOST" "0.0.0.0"
  "APP_PORT" "8000"
  "APP_URL" .root.Values.url
  "TRUSTED_PROXIES" $proxies
  "REVERB_HOST" (printf "%s-realtime" $name)
  "REVERB_PORT" "8080"
  "REVERB_SCHEME" "http"
  "REVERB_PUBLIC_HOST" (first $public)
  "REVERB_PUBLIC_PORT" (ternary (last $public) "443" (eq (len $public) 2))
  "REVERB_PUBLIC_SCHEME" "https" }}
{{- range $key, $value := merge (dict) .own .root.Values.settings $all }}
- name: {{ $key }}
  value: {{ $value | quote }}
{{- end }}
{{- range list "DATABASE_URL" "REDIS_URL" "REVERB_APP_ID" "REVERB_APP_KEY" "REVERB_APP_SECRET" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ include "smartlink.secret" $.root }}, key: {{ . }}}
{{- end }}
{{- end }}

{{- define "smartlink.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "smartlink.containerSecurity" -}}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where pods go: dict "root" $ "service" "app" */}}
{{- define "smartlink.placement" -}}
topologySpreadConstraints:
{{- range .root.Values.topologySpread.keys }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "smartlink.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end }}
