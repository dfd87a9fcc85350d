{{- define "echo.name" -}}{{ .Release.Name }}-echo{{- end }}
{{- define "echo.labels" -}}
app.kubernetes.io/name: echo
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
